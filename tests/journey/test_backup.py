"""Backup and restore of a real server: under load, killed at any moment, and what a client finds afterwards (D10)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trained
from server import RunningServer, clean_environment, command, until

from load import Load

Serve = Callable[..., RunningServer]
PATH = "/v2/models/cancer/infer"
CLIENTS = 2


def answered(load: Load) -> set[str]:
    """The ids of all answers so far."""
    return {answer.headers["x-prediction-id"] for answer in load.answers if answer.status == 200}


def done(*arguments: str | Path) -> dict[str, Any]:
    """What a command says as JSON; it ends with 0."""
    ended = command(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def logged(data: Path, out: Path) -> dict[str, dict[str, Any]]:
    """The log of a folder, by id; every line of it is read."""
    assert command("predictions", "export", "--out", out, "--data", data).returncode == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    by_id = {record["id"]: record for record in records}
    assert len(by_id) == len(records), "a record is there twice"
    return by_id


def prepared(server: RunningServer) -> str:
    """Two versions of a model, and the key of a client that may predict."""
    for version, strength in (("1", 1.0), ("2", 0.01)):
        assert server.publish("cancer", trained.cancer(strength).content, version).status == 201
    key: str = server.create_key("acme", rate="1000000/s")["key"]
    return key


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_backup_under_load_holds_all_that_was_answered(serve: Serve, tmp_path: Path, name: str) -> None:
    """D10 P1: while predictions run, a backup holds every record that was answered before the command began, each
    whole, or counts it as waiting where the drain lags; restored, the old key predicts with the old versions, and log
    and audit log go on."""
    server = serve(workers=2)
    key = prepared(server)
    out, new = tmp_path / name, tmp_path / "new"
    with Load(server, key, PATH, CLIENTS) as load:
        until(lambda: len(load.answers) > 300, what="load")
        before = answered(load)
        begun = time.monotonic()
        made = done("backup", "create", "--data", server.data, "--out", out)
        took_s = time.monotonic() - begun
        assert len(answered(load)) > len(before), "nothing ran meanwhile"
    assert load.failures == []
    server.stop()
    assert done("backup", "verify", out)["sound"]

    shutil.rmtree(server.data)
    begun = time.monotonic()
    done("restore", out, "--data", new)
    restored_s = time.monotonic() - begun
    records = logged(new, tmp_path / "log.jsonl")
    lacking = before - records.keys()
    assert len(lacking) <= made["waiting"]
    assert len(records) == made["counts"]["records"]
    torn = [one for one, record in records.items() if not (record["inputs"] and record["outputs"])]
    assert torn == []
    print(  # figures for people; nothing is asserted on time
        f"\n{name}: {made['counts']['records']:,} records, {made['size_bytes']:,} bytes; created in {took_s:.2f} s "
        f"({made['counts']['records'] / took_s:,.0f} records/s), restored in {restored_s:.2f} s, "
        f"{made['waiting']} waiting, {len(lacking)} lacking, {len(torn)} torn"
    )

    again = RunningServer(new)
    try:
        again.start()
        row = trained.cancer().rows[:1]
        for version in ("1", "2"):
            reply = again.ask("POST", f"/v2/models/cancer/versions/{version}/infer", trained.infer_body(X=row), key=key)
            assert reply.status == 200, reply.body
        assert again.ask("GET", "/v1/models", key=server.key).status == 200
        assert again.ask("POST", PATH, trained.infer_body(X=row), key=None).status == 401
    finally:
        again.stop()
    assert len(logged(new, tmp_path / "after.jsonl")) == len(records) + 3 - 1
    assert command("audit", "verify", "--data", new).returncode == 0


STAGES: tuple[tuple[str, str], ...] = (
    ("made-1", "."),
    ("made-2", "content/modelyard.db"),
    ("made-3", "content/artifacts"),
    ("made-4", "content/backup.json.sha256"),
    ("made-5.tar", "content/modelyard.db"),
    ("made-6.tar", "archive"),
    ("restored-1", "."),
    ("restored-2", "data/modelyard.db"),
    ("restored-3", "data/artifacts"),
)
"""What a command makes, and what of its temporary folder is there when it is killed."""


def test_a_killed_command_leaves_no_half_backup(serve: Serve, tmp_path: Path) -> None:
    """D10: kill -9 of `backup create` and of `restore` at nine stages: what they make is there whole or not at all, the
    server does not notice, and the next command sweeps what is left."""
    server = serve()
    key = prepared(server)
    with Load(server, key, PATH, CLIENTS) as load:
        until(lambda: len(load.answers) > 300, what="load")
    whole = tmp_path / "whole"
    done("backup", "create", "--data", server.data, "--out", whole)
    nothing = 0
    for name, stage in STAGES:
        made = tmp_path / name
        restoring = name.startswith("restored")
        words: tuple[str | Path, ...] = ("backup", "create", "--data", server.data, "--out", made)
        if restoring:
            words = ("restore", whole, "--data", made)
        _killed(words, made, stage)
        if not made.exists():
            nothing += 1
            done(*words)
        else:  # killed after its place was taken: the next one is refused, and sweeps
            assert command(*words).returncode == 5
        assert list(tmp_path.glob(f".{name}.*.partial")) == []
        if restoring:
            assert len(logged(made, tmp_path / "log.jsonl")) > 300
        else:
            assert done("backup", "verify", made)["sound"]
    print(f"\n{len(STAGES)} kills: {nothing} left nothing, {len(STAGES) - nothing} the whole")
    assert nothing >= len(STAGES) // 2
    assert server.ask("POST", PATH, trained.infer_body(X=trained.cancer().rows[:1]), key=key).status == 200


def _killed(words: tuple[str | Path, ...], made: Path, stage: str) -> None:
    """Starts a command and kills it as soon as `stage` can be seen in its temporary folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard.cli.main", *map(str, words)],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(
        lambda: process.poll() is not None or any(made.parent.glob(f".{made.name}.*.partial/{stage}")),
        within_s=60,
        what=stage,
    )
    process.kill()
    process.wait()
