"""A copy of a database is one moment of it, however much is written meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.backup import database
from modelyard.core.errors import CommandError


def test_a_copy_ends_and_is_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two steps somebody commits: the copy neither begins again nor takes any of it in."""
    monkeypatch.setattr(database, "STEP_PAGES", 2)
    live, steps = tmp_path / "live.db", []
    with closing(sqlite3.connect(live, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (x)")
        writer.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * 200)

        def write(size_bytes: int) -> None:
            steps.append(size_bytes)
            assert len(steps) < 1000, "it began again and again"
            writer.execute("INSERT INTO t VALUES (1)")

        database.copy_database(live, tmp_path / "copy.db", 1.0, write)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (200,)
    assert len(steps) > 20
    assert sum(steps) == (tmp_path / "copy.db").stat().st_size
    assert sorted(path.name for path in tmp_path.glob("copy.db*")) == ["copy.db"]


def test_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is none, by a sentence."""
    (tmp_path / "live.db").write_bytes(b"no database, but long enough to look like one" * 30)
    with pytest.raises(CommandError) as refused:
        database.copy_database(tmp_path / "live.db", tmp_path / "copy.db", 0.1)
    assert refused.value.code == "backup_failed"
    with pytest.raises(CommandError) as refused:
        database.holdings(tmp_path / "live.db", 0.1)
    assert refused.value.code == "backup_damaged"
    assert database.integrity(tmp_path / "live.db", 0.1) != ""
