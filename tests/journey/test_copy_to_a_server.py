"""From a laptop to a server and back: a real server goes on while it is copied (D10 in small, without a backup)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trained
from server import RunningServer, command, until

from load import Load
from postgres.server import Server

Serve = Callable[..., RunningServer]
PATH = "/v2/models/cancer/infer"


def copied(source: Path, target: Path | str) -> dict[str, Any]:
    """What `modelyard copy` says; it ends with 0."""
    ended = command("copy", "--from", source, "--to", target, "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_laptop_becomes_a_server_and_comes_back(serve: Serve, postgres: Server, tmp_path: Path) -> None:
    """P1 P2: copied under load to PostgreSQL, no request is lost and no answered record is missing; a second run
    after the stop brings the rest; the old key predicts from PostgreSQL, and the audit log is sound there. Back in
    a SQLite folder every table has the hash that it had on PostgreSQL."""
    server, url = serve(), postgres.empty()
    for version, strength in (("1", 1.0), ("2", 0.01)):
        assert server.publish("cancer", trained.cancer(strength).content, version).status == 201
    key = server.create_key("acme", rate="1000000/s")["key"]
    with Load(server, key, PATH, 1) as load:
        until(lambda: len(load.answers) > 200, what="load")
        before = len(load.answers)
        first = copied(server.data, url)
        assert len(load.answers) > before
    assert load.failures == []
    ids = [answer.headers["x-prediction-id"] for answer in load.answers if answer.status == 200]
    assert first["tables"]["predictions"]["rows"] + first["waiting"] >= before
    server.stop()

    second = copied(server.data, url)
    assert second["tables"]["predictions"]["rows"] == len(ids)
    assert second["written"]["predictions"] == len(ids) - first["tables"]["predictions"]["rows"]
    print(f"\n{len(ids):,} records, {first['tables']['predictions']['rows']:,} of them by the copy under load")

    config = tmp_path / "server.toml"
    config.write_text(f'data = "{server.data}"\n[database]\nurl = "{url}"\n')
    there = serve(settings={"database.url": url, "auth.admin_key": server.key})
    row = trained.infer_body(X=trained.cancer().rows[:1])
    for version in ("1", "2"):
        assert there.ask("POST", f"/v2/models/cancer/versions/{version}/infer", row, key=key).status == 200
    assert there.ask("GET", f"/v1/predictions/{ids[0]}").status == 200
    until(lambda: there.count(client="acme") == len(ids) + 2, what="the drain")
    there.stop()
    assert command("audit", "verify", "--data", server.data, env={"MODELYARD_CONFIG": str(config)}).returncode == 0

    gone = command("copy", "--from", server.data, "--to", url)
    assert gone.returncode == 5, "the target was served"
    back = copied(config, tmp_path / "back")
    unchanged = ("api_keys", "clients", "manifests", "versions", "models", "outcomes", "endpoints", "traffic")
    assert {name: back["tables"][name] for name in unchanged} == {name: second["tables"][name] for name in unchanged}
    assert back["tables"]["predictions"]["rows"] == len(ids) + 2
    assert command("audit", "verify", "--data", tmp_path / "back").returncode == 0
    home = RunningServer(tmp_path / "back", settings={"auth.admin_key": server.key})
    try:
        home.start()
        assert home.ask("POST", PATH, row, key=key).status == 200
    finally:
        home.stop()
