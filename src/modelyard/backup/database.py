"""A consistent copy of a SQLite file that others write to, and what such a copy holds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from modelyard.audit.chain import Head
from modelyard.backup.manifest import damaged
from modelyard.core.errors import CommandError

STEP_PAGES = 512
"""Pages of one step (4 MiB): between two of them a stop is heard and the bar moves."""
COUNTED = {
    "models": "models",
    "versions": "versions",
    "endpoints": "endpoints",
    "clients": "clients",
    "keys": "api_keys",
    "records": "predictions",
    "quarantined": "quarantined_predictions",
    "outcomes": "outcomes",
    "legal_holds": "legal_holds",
    "erasures": "erasures",
    "audit_events": "audit_events",
}
"""What is counted, and the table it lies in."""


class Holdings(msgspec.Struct, frozen=True):
    """What a database holds: its schema, rows by kind, the last event of the audit log, the digests of all versions."""

    schema: str
    counts: dict[str, int]
    audit_head: Head | None
    digests: tuple[str, ...]


@contextmanager
def opened(path: Path, busy_timeout_s: float) -> Iterator[sqlite3.Connection]:
    """A connection to a file that exists; it begins no transaction by itself."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None)) as connection:
        yield connection


def copy_database(source: Path, target: Path, busy_timeout_s: float, advance: Callable[[int], object] = bool) -> None:
    """Copies the state of one moment into a new private file, durable; `advance` is told the bytes of each step.

    The source is read in one transaction. Without it SQLite's backup would begin again with each commit of another
    process, and never end beside a drain. While it lasts the source's WAL grows by what is written meanwhile.
    CommandError("backup_failed") with SQLite's reason.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with opened(source, busy_timeout_s) as live, opened(target, busy_timeout_s) as copy:
            live.execute("BEGIN")
            (page_bytes,) = live.execute("SELECT page_size FROM pragma_page_size, sqlite_schema LIMIT 1").fetchone()
            live.backup(copy, pages=STEP_PAGES, progress=_told(advance, page_bytes))
            live.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise CommandError("backup_failed", f"The database cannot be copied: {error}.", field="--data") from None
    _sync(target)


def _told(advance: Callable[[int], object], page_bytes: int) -> Callable[[int, int, int], None]:
    told = 0

    def progress(_status: int, remaining: int, total: int) -> None:
        nonlocal told
        done = (total - remaining) * page_bytes
        advance(done - told)
        told = done

    return progress


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stored_schema(connection: sqlite3.Connection) -> str:
    """The revision of the schema; CommandError("backup_damaged") without one."""
    try:
        (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError):
        raise damaged("its database has no schema of ours") from None
    return str(schema)


def holdings(path: Path, busy_timeout_s: float) -> Holdings:
    """What a database holds; CommandError("backup_damaged")."""
    try:
        with opened(path, busy_timeout_s) as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            counts = {
                kind: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]  # noqa: S608 - constants
                for kind, table in COUNTED.items()
                if table in known
            }
            last = connection.execute(
                "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
            digests = connection.execute("SELECT DISTINCT digest FROM versions ORDER BY digest").fetchall()
            return Holdings(stored_schema(connection), counts, last and Head(*last), tuple(row[0] for row in digests))
    except sqlite3.Error as error:
        raise damaged(f"its database cannot be read ({error})") from None


def integrity(path: Path, busy_timeout_s: float) -> str:
    """Empty if SQLite finds the file sound, else the first thing that it found."""
    try:
        with opened(path, busy_timeout_s) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if said == "ok" else str(said)
