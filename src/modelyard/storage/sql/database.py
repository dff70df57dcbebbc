"""One database: its connections, its transactions, and its failures in our words."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from modelyard.core.errors import ModelyardError, UnavailableError
from modelyard.storage.login.aws import Secrets, Tokens
from modelyard.storage.login.database import Login, login_of, login_refused
from modelyard.storage.sql import dialects
from modelyard.storage.sql.dialects.dialect import KIND, RETRY_AFTER_S, Kind

_AFTER_COMMIT = "modelyard_after_commit"


class Database:
    """Connections to one database. Safe for threads; a forked child gets connections of its own.

    Every wait of a transaction is bounded by `busy_timeout_s`. What fails because of the database's state becomes
    UnavailableError("store_unavailable"), what fails because of us InternalError("internal"); either way nothing of
    the transaction is kept.
    """

    def __init__(
        self,
        url: str,
        busy_timeout_s: float,
        breathe: Callable[[], object] | None = None,
        secrets: Secrets | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """`secrets` and `tokens` None are AWS's, asked only where the URL refers to them."""
        parsed, self._login = login_of(url, busy_timeout_s, secrets, tokens)
        self._busy_timeout_s = busy_timeout_s
        self.dialect = dialects.dialect_of(parsed)
        self._engine = self.dialect.engine(parsed, busy_timeout_s)
        if self._login is not None:
            event.listen(self._engine, "do_connect", _signing(self._login))
        if breathe is not None:
            self.dialect.breathe_often(self._engine, breathe)
        self._pid = os.getpid()
        self._turn = threading.Lock()

    def open(self) -> None:
        """Makes the database ready for transactions; SettingsError("setting_invalid" | "data_folder_unusable"),
        UnavailableError("store_unavailable")."""
        began_s = time.monotonic()
        try:
            self.dialect.prepare(self._engine, self._busy_timeout_s)
        except ModelyardError as error:
            if not self._renewed(error.__cause__, began_s):
                raise
            self.dialect.prepare(self._engine, self._busy_timeout_s)

    def close(self) -> None:
        """Closes all connections; a second call does nothing."""
        self._engine.dispose()

    def ping(self) -> None:
        """Returns if a transaction can read; UnavailableError("store_unavailable") otherwise."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT 1")

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that reads: all its statements see one state."""
        return self._transaction(Kind.READ)

    def survey(self) -> AbstractContextManager[Connection]:
        """A transaction that reads, and whose statements may look at much of the log: they are bounded more widely."""
        return self._transaction(Kind.SURVEY)

    def moment(self) -> AbstractContextManager[Connection]:
        """A transaction that reads one state for as long as it takes: the server does not end it when nothing is asked
        for a while."""
        return self._transaction(Kind.MOMENT)

    def write(self, *, holds_appends: bool = False) -> AbstractContextManager[Connection]:
        """A transaction that writes: alone among `write` from its begin on, durable once the block ends, undone if it
        raises. With `holds_appends` it is alone among `append` too: what it reads of the log stays true."""
        return self._transaction(Kind.WRITE_ALL if holds_appends else Kind.WRITE)

    def append(self) -> AbstractContextManager[Connection]:
        """A transaction like `write` that others may run beside: what it adds must not depend on what it read."""
        return self._transaction(Kind.APPEND)

    def upgrade(self) -> AbstractContextManager[Connection]:
        """A transaction that changes the schema, one at a time whatever the number of hosts."""
        return self._transaction(Kind.UPGRADE)

    @contextmanager
    def _transaction(self, kind: Kind) -> Iterator[Connection]:
        engine = self.engine  # first of all: in a forked child it makes the rest anew
        with self._in_our_words(), self._own_turn(kind), self._connected(engine) as connection:
            connection.execution_options(**{KIND: kind})
            connection.info.pop(_AFTER_COMMIT, None)
            with connection.begin():
                yield connection
            for act in connection.info.pop(_AFTER_COMMIT, ()):
                act()

    def _connected(self, engine: Engine) -> Connection:
        began_s = time.monotonic()
        try:
            return engine.connect()
        except DBAPIError as error:
            if not self._renewed(error, began_s):
                raise
            return engine.connect()

    def _renewed(self, error: BaseException | None, began_s: float) -> bool:
        """Whether a refused login has something else to sign in with by now: a password may have been changed."""
        return self._login is not None and login_refused(error) and self._login.renew(began_s)

    @contextmanager
    def _own_turn(self, kind: Kind) -> Iterator[None]:
        """Those that write alone wait for each other in this process first. SQLite lets waiters try again and again
        instead, ever more seldom, and of many some are passed until their time is over."""
        if kind.reads or kind is Kind.APPEND:
            yield
            return
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise UnavailableError(
                "store_unavailable", "Too many changes wait for the database.", retry_after_s=RETRY_AFTER_S
            )
        try:
            yield
        finally:
            self._turn.release()

    def forget_past(self) -> None:
        """Has what was deleted leave the database's own journal too, as far as that can be done now."""
        with self._in_our_words():
            self.dialect.forget_past(self.engine)

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self.dialect.refusal(error) from error
        except PoolTimeoutError as error:
            raise UnavailableError(
                "store_unavailable", "All database connections are in use.", retry_after_s=RETRY_AFTER_S
            ) from error

    @property
    def engine(self) -> Engine:
        """The engine of this process. A connection must not cross a fork: its socket, or SQLite's locks, belong to
        the process."""
        if self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._turn = threading.Lock()  # a thread that is not here may have held it
            self._pid = os.getpid()
        return self._engine


def _signing(login: Login) -> Callable[..., None]:
    def sign(_dialect: object, _entry: object, _arguments: object, named: dict[str, Any]) -> None:
        named.update(login.given())

    return sign


def after_commit(connection: Connection, act: Callable[[], None]) -> None:
    """Has `act`, which must not raise, called once this write transaction is durable; never if it is undone."""
    connection.info.setdefault(_AFTER_COMMIT, []).append(act)
