"""SQLite: one file, one writer at a time, in this process. What each setting is for:

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Engine, Insert, Table, create_engine, event, func
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.storage.sql.dialects.dialect import KIND, RETRY_AFTER_S, Append, Kind, Rows, shown, wrong_url

_PAGE_BYTES = 8192
"""Wide pages: a prediction record is about 1 KiB, so a 4 KiB page would waste a sixth of itself."""

_CACHE_KIB = 65_536
_CHECKPOINT_PAGES = 4000
"""Pages in the WAL before it is copied back (32 MiB); fewer, larger checkpoints write hot index pages once."""

_UNIX_EPOCH_DAYS = 2_440_587.5
"""The Julian day of 1970-01-01T00:00Z (sqlite.org/lang_datefunc.html)."""
_WAL_RETRY_S = 0.01
_BREATHE_STEPS = 500
"""Steps of SQLite's virtual machine between two breaths."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


class SQLite:
    """dialects.dialect.Dialect for a SQLite file."""

    def engine(self, url: URL, busy_timeout_s: float) -> Engine:
        """An engine whose transactions are ours to begin."""
        if not url.database or url.database == ":memory:":
            raise wrong_url("The setting `database.url` names no SQLite file.", shown(url))
        engine = create_engine(url, connect_args={"timeout": busy_timeout_s}, pool_timeout=busy_timeout_s)
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
        return engine

    def prepare(self, engine: Engine, busy_timeout_s: float) -> None:
        """Makes the file; SettingsError("data_folder_unusable")."""
        try:
            prepare_file(engine, busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(
                "data_folder_unusable", f"The database cannot be opened: {reason}.", field="database.url"
            ) from error

    def breathe_often(self, engine: Engine, breathe: Callable[[], object]) -> None:
        """See Dialect."""
        breathe_often(engine, breathe)

    def forget_past(self, engine: Engine) -> None:
        """See Dialect."""
        forget_past(engine)

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves out rows whose primary key is taken."""
        return sqlite.insert(table).on_conflict_do_nothing()

    def append(self, table: Table, columns: Sequence[str]) -> Append:
        """One prepared statement, run over tuples."""
        statement = self.insert_new(table).compile(dialect=sqlite.dialect(), column_keys=columns)
        assert getattr(statement, "positiontup", None) == list(columns), "rows are tuples in the order of the columns"
        text = str(statement)

        def append(connection: Connection, rows: Rows) -> int:
            result: CursorResult[Any] = connection.exec_driver_sql(
                text, list(rows), execution_options={"preserve_rowcount": True}
            )
            return result.rowcount

        return append

    def refusal(self, error: DBAPIError) -> ModelyardError:
        """What SQLite says holds no secrets: its words help."""
        if isinstance(error, IntegrityError | DataError | ProgrammingError):
            return InternalError("internal", "The database refused a statement.")
        return UnavailableError(
            "store_unavailable", f"The database is not available: {error.orig}.", retry_after_s=RETRY_AFTER_S
        )

    @property
    def now(self) -> ColumnElement[Any]:
        """See Dialect."""
        return (func.julianday("now") - _UNIX_EPOCH_DAYS) * 86_400.0

    @property
    def prediction_log_views(self) -> dict[int, str]:
        """See Dialect."""
        return {1: _PREDICTION_LOG_VIEW_1}


def breathe_often(engine: Engine, breathe: Callable[[], object]) -> None:
    """Has `breathe` called about every 50 microseconds while a statement runs: SQLite works in this process, and one
    insert of two thousand records would keep the core for 20 ms."""

    def handler() -> int:
        breathe()
        return 0  # go on

    def listen(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.set_progress_handler(handler, _BREATHE_STEPS)

    event.listen(engine, "connect", listen)


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
    kind = connection.get_execution_options().get(KIND, Kind.READ)
    connection.exec_driver_sql("BEGIN" if kind.reads else "BEGIN IMMEDIATE")


def forget_past(engine: Engine) -> None:
    """Empties the WAL, which holds pages as they were before the last deletions; as far as readers let it, within the
    time that a statement waits. Later checkpoints do the rest."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


_PREDICTION_LOG_VIEW_1 = """
CREATE VIEW prediction_log AS
SELECT id,
       strftime('%Y-%m-%dT%H:%M:%S', "at" / 1000000, 'unixepoch') || printf('.%06dZ', "at" % 1000000) AS time,
       request_id, client, key_id, endpoint, model, version, arm, status, code, "rows", inputs, outputs,
       queue_us, compute_us, total_us, request_bytes, answer_bytes, subject, flag
FROM predictions
"""
"""The prediction log for BI tools, first form: these names and meanings stay."""
