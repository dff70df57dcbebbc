"""Two releases over one database: the last one on the new schema, the new one on the old schema, then what removes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trained
from server import RunningServer, command, until

from lastrelease import program
from modelyard.storage.sql import schema

ROOT = Path(__file__).parent.parent.parent
ROW = trained.infer_body(X=trained.cancer().rows[:1])
Serve = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `modelyard` is the last release."""
    source = program.unpacked(tmp_path_factory.mktemp("last-release"))
    found = {"PYTHONPATH": str(source)}
    said = command("--version", env=found)
    assert said.returncode == 0, said.stderr
    assert _module(found) == str(source / "modelyard" / "__init__.py")
    return found


def _module(env: dict[str, str]) -> str:
    import sys

    asked = [sys.executable, "-c", "import modelyard; print(modelyard.__file__)"]
    return subprocess.run(asked, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout.strip()


class Folder:
    """One data folder that programs of both releases are started on, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.admin = self.key = ""
        self.sent = 0
        self.servers: list[RunningServer] = []

    def start(self, env: dict[str, str] | None = None, **settings: str) -> RunningServer:
        """A server of the release that `env` names."""
        given = {"auth.admin_key": self.admin, **settings} if self.admin else settings
        server = RunningServer(self.path, settings=given)
        server._env |= env or {}
        self.servers.append(server)
        server.start()
        self.admin = server.key
        return server

    def journey(self, server: RunningServer, version: str) -> None:
        """Publish, keys, traffic, predictions, outcomes, the log, the audit log: the whole road in short."""
        published = server.publish("cancer", trained.cancer(1.0 / int(version)).content, version)
        assert published.status == 201, published.body
        assert server.set_traffic("cancer", **{f"v{version}": 100}).status == 200
        if not self.key:
            self.key = server.create_key("acme", rate="1000000/s")["key"]
        fresh = server.create_key(f"client-{version}")["key"]
        for key in (self.key, fresh):
            until(lambda key=key: self._predicts(server, key, version), what="the change")
        until(lambda: server.count(client="acme") == self.sent, what="the drain")
        page = server.ask("GET", f"/v1/predictions?client=acme&version={version}").json["predictions"]
        told = server.ask("POST", f"/v1/predictions/{page[0]['id']}/outcome", {"value": 1}, key=self.key)
        assert told.status in (200, 201), told.body
        assert server.ask("GET", "/v1/audit/verify").json["sound"]

    def _predicts(self, server: RunningServer, key: str, version: str) -> bool:
        reply = server.ask("POST", "/v2/models/cancer/infer", ROW, key=key)
        if reply.status == 200 and key == self.key:
            self.sent += 1
        return reply.status == 200 and reply.headers["x-model-version"] == version

    def query(self, statement: str) -> Any:
        """The first value of a statement."""
        with closing(sqlite3.connect(self.path / "modelyard.db", isolation_level=None)) as connection:
            row = connection.execute(statement).fetchone()
            return row and row[0]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """An empty one; whatever still runs on it at the end is ended."""
    made = Folder(tmp_path / "data")
    yield made
    for server in made.servers:
        server.end()


def migrate(word: str, data: Path) -> dict[str, Any]:
    """What `modelyard migrate` says."""
    ran = command("migrate", word, "--data", data, "--json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_two_releases_over_one_folder(old: dict[str, str], folder: Folder) -> None:
    """D9 P2: a folder of the last release; its additions made beside the running server; the last release's code
    started anew on the new schema; the new code on it; then what removes. Each goes the whole road, and finds all that
    the others stored. Once something was removed, the last release does not start, by a sentence."""
    server = folder.start(old)
    folder.journey(server, "1")
    assert folder.query("SELECT version_num FROM alembic_version") == program.SCHEMA
    assert migrate("status", folder.path)["revision"] == program.SCHEMA
    assert migrate("pre", folder.path)["revision"] >= program.SCHEMA
    folder.journey(server, "2")  # the old program runs on
    server.stop()

    server = folder.start(old)
    folder.journey(server, "3")
    server.stop()

    server = folder.start()
    folder.journey(server, "4")
    server.stop()

    assert migrate("post", folder.path)["pending"] == []
    server = folder.start()
    folder.journey(server, "5")
    assert server.count(client="acme") == folder.sent
    server.stop()
    assert migrate("status", folder.path)["revision"] == schema.HEAD

    folder.query("UPDATE alembic_version SET version_num = '9999'")  # as a step that removes would
    refused = command("serve", "--data", folder.path, "--port", "0", env=old)
    assert refused.returncode != 0
    assert "a newer one wrote it" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_new_code_on_the_old_schema(old: dict[str, str], folder: Folder) -> None:
    """D9: with `database.upgrade = off` the start is refused by a sentence with the command, and nothing is changed;
    without it the start makes the additions itself, and goes on with what is there."""
    server = folder.start(old)
    folder.journey(server, "1")
    server.stop()
    # The first schema that any program of ours had would do as well; this one lacks only what is easily taken away.
    folder.query("DROP TABLE retention_state")
    folder.query("DROP TABLE leases")
    folder.query("DROP TABLE erasures")
    folder.query("DROP TABLE legal_holds")
    folder.query("UPDATE alembic_version SET version_num = '0004'")
    refused = command("serve", "--data", folder.path, "--port", "0", env={"MODELYARD_DATABASE__UPGRADE": "off"})
    assert refused.returncode != 0
    assert "[schema_outdated]" in refused.stderr
    assert "modelyard migrate pre" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert folder.query("SELECT count(*) FROM sqlite_schema WHERE name = 'leases'") == 0
    server = folder.start()
    folder.journey(server, "2")
    server.stop()


def test_the_archive_is_that_commit(tmp_path: Path) -> None:
    """Every file of it is the commit's, where there is a history to ask."""
    source = program.unpacked(tmp_path)
    asked = ["git", "-C", str(ROOT), "ls-tree", "-r", program.COMMIT, "src/modelyard"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    assert len(files) > 200
    if listed.returncode != 0:
        return  # a clone without history; the archive's own hash was checked
    known = {line.split("\t")[1]: line.split()[2] for line in listed.stdout.splitlines()}
    hashed = subprocess.run(
        ["git", "hash-object", "--no-filters", *map(str, files)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {str(path.relative_to(tmp_path)): value for path, value in zip(files, hashed, strict=True)} == known
