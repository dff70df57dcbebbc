"""A connection to PostgreSQL whose every wait has an end, and that leaves a server which takes no writes any more.

libpq waits for an answer as long as the kernel at the other end is alive: `tcp_user_timeout` and keepalives see a
machine or a network that is gone, not a server that is stopped or hangs on its disk. The server's own
`statement_timeout` cannot help there either. psycopg polls the socket; so the end is put around what it polls for.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.storage.sql.dialects.postgresql_tls import explained

_MADE = "modelyard_made"
_READ_ONLY_STATE = "25006"
LOOK_AGAIN_S = 1.0
"""So long a connection to a server that takes no writes is used for reading, before another one is made."""
_INTERVAL_S = 0.1
"""How often a wait looks at the time."""


class ServerSilentError(psycopg.OperationalError):
    """No answer came within the time that the connection waits for one."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits `bound_s` at most for the answer to a statement, and is closed after it has waited in
    vain: what the server made of the statement is unknown then."""

    bound_s: float = inf

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None) -> RV:
        """See psycopg.Connection.wait; ServerSilentError after `bound_s`."""
        bound_s = self.bound_s if timeout is None else min(timeout, self.bound_s)
        try:
            return super().wait(_ending(gen, monotonic() + bound_s), interval)
        except ServerSilentError:
            self.pgconn.finish()
            raise


def _ending(gen: PQGen[RV], deadline_s: float) -> PQGen[RV]:
    """The same generator, which looks at the time whenever nothing came in an interval."""
    try:
        state = next(gen)
        while True:
            ready = yield state
            if not ready and monotonic() >= deadline_s:
                raise ServerSilentError("timeout expired: the server is silent")
            state = gen.send(ready)
    except StopIteration as end:
        answer: RV = end.value
        return answer


def bound_answers(engine: Engine, bound_s: float) -> None:
    """Connections of this engine wait so long for an answer; a transaction may set another bound for itself."""

    def connect(*arguments: Any, **named: Any) -> BoundedConnection:
        try:
            made = BoundedConnection.connect(*arguments, **named)
        except psycopg.OperationalError as error:
            raise explained(error, named, bound_s) from None
        made.bound_s = bound_s
        return made

    def reset(connection: BoundedConnection, _entry: object, _state: object) -> None:
        connection.bound_s = bound_s

    # No listener to `do_connect`: the one that says the password comes later, and would not be heard.
    dialect: Any = engine.dialect
    dialect.connect = connect
    event.listen(engine, "reset", reset)


def leave_when_read_only(engine: Engine) -> None:
    """Has connections made anew once their server takes no writes any more: behind the same address another one may be
    the primary now. A server tells so by itself (PostgreSQL 14 and newer), or by refusing a write."""
    event.listen(engine, "connect", _note)
    event.listen(engine, "checkout", _look)
    event.listen(engine, "handle_error", _leave)


def taking_writes(connection: Connection) -> Any:
    """The driver's connection for a transaction that writes: not one whose server said that it takes no writes, as long
    as a new one may lead elsewhere."""
    begun = monotonic()
    while _is_read_only(connection.connection.driver_connection) and connection.connection.info[_MADE] < begun:
        connection.invalidate()
    return connection.connection.driver_connection


def _note(_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info[_MADE] = monotonic()


def _look(connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:
    if _is_read_only(connection) and monotonic() - entry.info[_MADE] > LOOK_AGAIN_S:
        raise InvalidatePoolError("the server takes no writes")


def _is_read_only(connection: Any) -> bool:
    told = map(connection.info.parameter_status, ("default_transaction_read_only", "in_hot_standby"))
    return "on" in told


def _leave(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_STATE:
        context.is_disconnect = True
