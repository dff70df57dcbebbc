"""Everything that differs between databases; the rest of the package is the same for all of them.

SQLite today. What each setting is for:

* WAL: readers never wait for the writer, the writer never waits for readers.
* `synchronous=FULL`, for metadata and drain alike: in WAL mode NORMAL may lose the last commits at power loss. A
  revoked key that works again, or a drained record whose spool file is already deleted, would break promises P1 and
  P6; the price is one fsync per transaction, and a drain transaction holds thousands of records.
* `secure_delete=ON`: what retention deletes is overwritten, not only unlinked (P13).
* `BEGIN IMMEDIATE` for writes: a transaction that reads first and writes later would otherwise fail with
  SQLITE_BUSY at its first write, without waiting, when another process wrote in between.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.core.errors import SettingsError

WRITES = "modelyard_writes"
"""Name of the execution option that marks a connection whose transaction will write."""

_PAGE_BYTES = 8192
"""Wide pages: a prediction record is about 1 KiB, so a 4 KiB page would waste a sixth of itself."""

_CACHE_KIB = 65_536
_CHECKPOINT_PAGES = 4000
"""Pages in the WAL before it is copied back (32 MiB); fewer, larger checkpoints write hot index pages once."""

_WAL_RETRY_S = 0.01
_BREATHE_STEPS = 500
"""Steps of SQLite's virtual machine between two breaths."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


def engine_for(url: str, busy_timeout_s: float) -> Engine:
    """An engine whose transactions are ours to begin; SettingsError("setting_invalid") for another database."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise SettingsError(
            "setting_invalid",
            "The setting `database.url` names no SQLite file.",
            field="database.url",
            expected="sqlite:///path/to/file.db",
            got=parsed.render_as_string(hide_password=True),
            example="sqlite:////var/lib/modelyard/modelyard.db",
        )
    engine = create_engine(parsed, connect_args={"timeout": busy_timeout_s}, pool_timeout=busy_timeout_s)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def breathe_often(engine: Engine, breathe: Callable[[], object]) -> None:
    """Has `breathe` called about every 50 microseconds while a statement runs: SQLite works in this process, and one
    insert of two thousand records would keep the core for 20 ms."""

    def handler() -> int:
        breathe()
        return 0  # go on

    def listen(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.set_progress_handler(handler, _BREATHE_STEPS)

    event.listen(engine, "connect", listen)


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        raise SettingsError(
            "setting_invalid",
            "The setting `database.url` is no database URL.",
            field="database.url",
            expected="sqlite:///path/to/file.db",
            example="sqlite:////var/lib/modelyard/modelyard.db",
        ) from None


def prepare_file(engine: Engine, busy_timeout_s: float) -> None:
    """Makes the database file private (0600, its WAL inherits that) and puts it into WAL mode, once and for good.

    Changing the mode needs the file alone and does not wait for others, so it is tried until `busy_timeout_s`.
    """
    path = str(engine.url.database)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    deadline = time.monotonic() + busy_timeout_s
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        while not _entered_wal(connection, deadline):
            time.sleep(_WAL_RETRY_S)
    finally:
        connection.close()


def _entered_wal(connection: sqlite3.Connection, deadline: float) -> bool:
    try:
        return bool(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) or time.monotonic() > deadline:
            raise
        return False


def _set_pragmas(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # sqlite3 begins nothing by itself; `_begin` does
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"cache_size=-{_CACHE_KIB}",
        f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
        f"journal_size_limit={4 * _CHECKPOINT_PAGES * _PAGE_BYTES}",
        "temp_store=MEMORY",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def forget_past(engine: Engine) -> None:
    """Empties the WAL, which holds pages as they were before the last deletions; as far as readers let it, within the
    time that a statement waits. Later checkpoints do the rest."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def insert_new(table: Table) -> Insert:
    """An INSERT that leaves out rows whose primary key is taken."""
    return sqlite.insert(table).on_conflict_do_nothing()


PREDICTION_LOG_VIEW_1 = """
CREATE VIEW prediction_log AS
SELECT id,
       strftime('%Y-%m-%dT%H:%M:%S', "at" / 1000000, 'unixepoch') || printf('.%06dZ', "at" % 1000000) AS time,
       request_id, client, key_id, endpoint, model, version, arm, status, code, "rows", inputs, outputs,
       queue_us, compute_us, total_us, request_bytes, answer_bytes, subject, flag
FROM predictions
"""
"""The prediction log for BI tools, first form: these names and meanings stay (docs: reference, SQL view)."""
