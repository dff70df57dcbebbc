"""`modelyard migrate`: what it shows, what it does, and what the audit log keeps of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cli_support import Run, parsed

from modelyard.storage.sql import schema
from modelyard.storage.sql.upgrade import FIRST_FLOOR


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
