"""`modelyard migrate`: what it shows, what it does, and what the audit log keeps of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import Run, parsed

from modelyard.app.folder import DataFolder
from modelyard.cli.doctor.findings import Finding, State
from modelyard.cli.doctor.folder import database
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.storage.sql import schema
from modelyard.storage.sql.upgrade import FIRST_FLOOR
from postgres.server import Server


def test_nothing_is_made_by_a_look(run: Run, tmp_path: Path) -> None:
    """A folder without a database: all steps are pending, and it stays so."""
    shown = parsed(run("migrate", "status", "--json"))
    assert (shown["revision"], shown["program"]) == (None, schema.HEAD)
    assert len(shown["pending"]) == int(schema.HEAD)
    assert not (tmp_path / "data").exists()


def test_steps_are_run_and_recorded(run: Run, tmp_path: Path) -> None:
    """`pre` makes the schema, `status` says that nothing is pending, `post` has nothing to do, and the change is in
    the audit log; a schema of before is brought up to date."""
    done = parsed(run("migrate", "pre", "--json"))
    assert done["done"][0]["revision"] == "0001"
    assert done["pending"] == []
    said = run("migrate", "status")
    assert "nothing is pending" in said.stdout
    assert "First tables" in said.stdout or "0001" in said.stdout
    assert "Nothing to do" in run("migrate", "post").stdout
    (event,) = parsed(run("audit", "list", "--json"))["events"]
    assert (event["action"], event["before"], event["after"]) == ("schema:migrate", None, schema.HEAD)
    with closing(sqlite3.connect(tmp_path / "data" / "modelyard.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (FIRST_FLOOR,)


@pytest.mark.parametrize(
    ("revision", "floor", "state", "words"),
    [
        (schema.HEAD, FIRST_FLOOR, State.OK, "nothing is pending"),
        ("0004", "0004", State.WARNING, "migrate pre"),
        ("9999", FIRST_FLOOR, State.OK, "this one works on"),
        ("9999", "9999", State.PROBLEM, "schema 9999"),
    ],
)
def test_the_doctor_knows_the_schema_of_a_server(
    postgres: Server, tmp_path: Path, revision: str, floor: str, state: State, words: str
) -> None:
    """Old, new and too new, in a sentence each; an empty database is no fault."""
    url = postgres.migrated()
    name = url.rpartition("/")[2]
    postgres.query(f"UPDATE schema_revision SET version_num = '{revision}'", name)
    postgres.query(f"UPDATE alembic_version SET version_num = '{floor}'", name)
    assert (_schema(url, tmp_path).state, words in _schema(url, tmp_path).said) == (state, True)
    assert "is empty" in _schema(postgres.empty(), tmp_path).said


def _schema(url: str, folder: Path) -> Finding:
    findings = database(DataFolder(folder), Settings(database=DatabaseSettings(url=url)))
    return next(one for one in findings if one.name == "schema")
