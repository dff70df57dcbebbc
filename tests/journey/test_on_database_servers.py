"""Everything on a database server: the same commands, another `database.url`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from server import RunningServer, command, until

from mariadb.server import Server as MariaDB
from postgres.server import Server as PostgreSQL

ROWS = trained.cancer().rows


@pytest.fixture(params=["postgres", "mariadb"])
def database(request: pytest.FixtureRequest) -> PostgreSQL | MariaDB:
    """A server of each kind."""
    found: PostgreSQL | MariaDB = request.getfixturevalue(request.param)
    return found


def test_a_yard_on_a_database_server(
    database: PostgreSQL | MariaDB, serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    """Publish, keys, traffic, predictions, the log, the audit log; another start finds all of it, and nothing of it
    lies in the data folder."""
    settings = {"database.url": database.empty()}
    server = serve(workers=2, settings=settings)
    admin = server.key
    for version, factor in (("1", 1.0), ("2", 0.01)):
        assert server.publish("cancer", trained.cancer(factor).content, version).status == 201
    key = server.create_key("acme", rate="1000000/s")["key"]
    ids = []
    for number in range(20):
        reply = server.ask("POST", "/v2/models/cancer/infer", trained.infer_body(X=ROWS[number : number + 1]), key=key)
        assert reply.status == 200, reply.body
        ids.append(reply.headers["x-prediction-id"])
    until(lambda: server.count(client="acme") == 20, what="the drain")
    page = server.ask("GET", "/v1/predictions?client=acme&limit=100").json["predictions"]
    assert sorted(record["id"] for record in page) == sorted(ids)
    actions = {event["action"] for event in server.ask("GET", "/v1/audit").json["events"]}
    assert {"version:publish", "key:create"} <= actions
    server.stop()
    assert not (tmp_path / "data" / "modelyard.db").exists()
    again = serve(workers=1, settings={**settings, "auth.admin_key": admin})
    assert again.count(client="acme") == 20
    reply = again.ask("POST", "/v2/models/cancer/infer", trained.infer_body(X=ROWS[:1]), key=key)
    assert reply.status == 200, reply.body


def test_a_wrong_url_ends_the_start_with_a_sentence(database: PostgreSQL | MariaDB, tmp_path: Path) -> None:
    """No traceback, no name; a status that says so."""
    env = {"MODELYARD_DATABASE__URL": database.url("n0where")}
    ran = command("serve", "--data", tmp_path / "data", "--port", "0", env=env)
    assert ran.returncode != 0
    said = ran.stdout + ran.stderr
    assert "The database server has no database of this name" in said
    assert "Traceback" not in said
    assert "n0where" not in said
