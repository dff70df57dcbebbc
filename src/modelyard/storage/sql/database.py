"""One database: its connections, its transactions, and its failures in our words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from modelyard.core.errors import InternalError, SettingsError, UnavailableError
from modelyard.storage.sql import dialects

RETRY_AFTER_S = 1.0
_AFTER_COMMIT = "modelyard_after_commit"


class Database:
    """Connections to one database. Safe for threads; a forked child gets connections of its own.

    Every transaction is bounded by `busy_timeout_s`. What fails because of the database's state becomes
    UnavailableError("store_unavailable"), what fails because of us InternalError("internal"); either way nothing of
    the transaction is kept.
    """

    def __init__(self, url: str, busy_timeout_s: float, breathe: Callable[[], object] | None = None) -> None:
        self._busy_timeout_s = busy_timeout_s
        self._engine = dialects.engine_for(url, busy_timeout_s)
        if breathe is not None:
            dialects.breathe_often(self._engine, breathe)
        self._pid = os.getpid()

    def open(self) -> None:
        """Makes the database ready for transactions; SettingsError("data_folder_unusable")."""
        try:
            dialects.prepare_file(self._engine, self._busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(
                "data_folder_unusable", f"The database cannot be opened: {reason}.", field="database.url"
            ) from error

    def close(self) -> None:
        """Closes all connections; a second call does nothing."""
        self._engine.dispose()

    def ping(self) -> None:
        """Returns if a transaction can read; UnavailableError("store_unavailable") otherwise."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT 1")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads: all its statements see one state."""
        with _in_our_words(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: alone from its begin on, durable once the block ends, undone if it raises."""
        with _in_our_words(), self.engine.connect() as connection:
            connection.execution_options(**{dialects.WRITES: True})
            connection.info.pop(_AFTER_COMMIT, None)
            with connection.begin():
                yield connection
            for act in connection.info.pop(_AFTER_COMMIT, ()):
                act()

    def forget_past(self) -> None:
        """Has what was deleted leave the database's own journal too, as far as that can be done now."""
        with _in_our_words():
            dialects.forget_past(self.engine)

    @property
    def engine(self) -> Engine:
        """The engine of this process. A connection must not cross a fork: SQLite's locks belong to the process."""
        if self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine


def after_commit(connection: Connection, act: Callable[[], None]) -> None:
    """Has `act`, which must not raise, called once this write transaction is durable; never if it is undone."""
    connection.info.setdefault(_AFTER_COMMIT, []).append(act)


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError) as error:
        raise InternalError("internal", "The database refused a statement.") from error
    except (DatabaseError, InterfaceError) as error:
        raise UnavailableError(
            "store_unavailable", f"The database is not available: {error.orig}.", retry_after_s=RETRY_AFTER_S
        ) from error
    except PoolTimeoutError as error:
        raise UnavailableError(
            "store_unavailable", "All database connections are in use.", retry_after_s=RETRY_AFTER_S
        ) from error
