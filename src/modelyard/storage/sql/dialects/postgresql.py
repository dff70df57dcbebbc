"""PostgreSQL, through psycopg.

* `write` takes the row lock of `snapshot`: it ends with its transaction, goes through connection poolers, and any
  server has it. READ COMMITTED, so that statements behind the lock see what its last owner committed.
* `append` takes no row. Two hosts may store one record at once: the primary key decides. A shared advisory lock lets
  `write(holds_appends=True)` wait for those that run, and them for it.
* Bounds are set in each transaction, in the round trip that takes its locks: what is set for a session is lost, or
  somebody else's, behind a pooler. For the same reason no statement is prepared on the server.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Float, Insert, String, Table, cast, create_engine, event, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from modelyard.core.errors import ModelyardError, SettingsError
from modelyard.storage.sql.dialects import postgresql_refusals as refusals
from modelyard.storage.sql.dialects.dialect import KIND, Append, Kind, Rows, is_loopback, shown, wrong_url

_DRIVERS = ("postgresql", "postgresql+psycopg")
_APPENDS, _UPGRADES = 0x6D6F64656C01, 0x6D6F64656C02
"""Keys of the advisory locks: "model" and a number."""

_LONG_FACTOR = 12
"""What looks at much of the log, and nobody waits for, may take so many times `busy_timeout_s`: a minute by default."""
_LONG = (Kind.SURVEY, Kind.WRITE_ALL)
_ON_THE_WAY_S = 1.0
"""What an answer that the server gives in time may take to come here: its own refusal says more than our silence."""
_LOCK_WAITS = 2
"""So many locks are taken in one round trip at most, each of which may be waited for."""

_ALONE = "SELECT version FROM snapshot WHERE id = 1 FOR UPDATE"
_LOCKS = {
    Kind.READ: (),
    Kind.SURVEY: (),
    Kind.MOMENT: (),
    Kind.WRITE: (_ALONE,),
    Kind.WRITE_ALL: (_ALONE, f"SELECT pg_advisory_xact_lock({_APPENDS})"),
    Kind.APPEND: (f"SELECT pg_advisory_xact_lock_shared({_APPENDS})",),
    Kind.UPGRADE: (f"SELECT pg_advisory_xact_lock({_UPGRADES})",),
}
_KEEPALIVE_PROBES = 3
_PORT = re.compile(r"(?<=[^:]):\d*$")
"""SQLAlchemy takes `host:port` in the query of a URL that names several; an address of IPv6 has more colons."""
_INCOMING = "modelyard_incoming"
_KEY_TAKEN = "23505"
"""unique_violation."""


class PostgreSQL:
    """dialects.dialect.Dialect for a PostgreSQL server."""

    def engine(self, url: URL, busy_timeout_s: float) -> Engine:
        """An engine that asks a pooled connection for a sign of life before each transaction."""
        if url.drivername not in _DRIVERS or not url.database:
            raise wrong_url("The setting `database.url` names no PostgreSQL database.", shown(url))
        try:
            engine = create_engine(
                url.set(drivername="postgresql+psycopg"),
                connect_args=_connect_args(url, busy_timeout_s),
                pool_timeout=busy_timeout_s,
                pool_pre_ping=True,
                use_native_hstore=False,
                hide_parameters=True,
            )
        except ImportError:
            raise SettingsError(
                "setting_invalid",
                "The setting `database.url` names PostgreSQL, which the extra `postgresql` brings.",
                field="database.url",
                expected="pip install 'modelyard[postgresql]'",
            ) from None
        from modelyard.storage.sql.dialects import postgresql_connection as connection

        connection.bound_answers(engine, busy_timeout_s + _ON_THE_WAY_S)
        connection.leave_when_read_only(engine)
        event.listen(engine, "begin", _beginning(busy_timeout_s))
        event.listen(engine, "before_cursor_execute", _without_nul, retval=True)
        return engine

    def prepare(self, engine: Engine, busy_timeout_s: float) -> None:
        """Connects once, so that what is wrong is said at the start."""
        try:
            engine.connect().close()
        except DBAPIError as error:
            raise refusals.at_start(error) from error

    def breathe_often(self, engine: Engine, breathe: Callable[[], object]) -> None:
        """Nothing to do: statements run in the server's process."""

    def forget_past(self, engine: Engine) -> None:
        """Nothing to do here: autovacuum and the server's own WAL retention see to it."""

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves out rows whose primary key is taken."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def append(self, table: Table, columns: Sequence[str]) -> Append:
        """COPY straight into the table, which refuses the whole of it if a key is taken. Then it goes, once more, by
        way of a table of this transaction, from which what is new is inserted: the only way to COPY around conflicts.
        That is rare: a batch comes a second time after a crash.

        A text with a NUL, which PostgreSQL cannot hold, keeps U+FFFD in its place.
        """
        names = ", ".join(f'"{name}"' for name in columns)
        # Names of ours alone are put into these.
        taken = f"SELECT {names} FROM {table.name} WITH NO DATA"  # noqa: S608
        made = f"CREATE TEMPORARY TABLE {_INCOMING} ON COMMIT DROP AS {taken}"
        inserted = f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {_INCOMING} ON CONFLICT DO NOTHING"  # noqa: S608
        into_table, into_incoming = (f"COPY {name} ({names}) FROM STDIN" for name in (table.name, _INCOMING))
        texts = _texts_of(table, columns)

        def append(connection: Connection, rows: Rows) -> int:
            connection.exec_driver_sql(f"SAVEPOINT {_INCOMING}")
            try:
                _copy(connection, into_table, texts, rows)
                return len(rows)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _KEY_TAKEN:
                    raise
            connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_INCOMING}")
            connection.exec_driver_sql(made)
            _copy(connection, into_incoming, texts, rows)
            return connection.exec_driver_sql(inserted).rowcount

        return append

    def refusal(self, error: DBAPIError) -> ModelyardError:
        """By the SQLSTATE: the server's text may hold hosts and users, and comes in its own language."""
        return refusals.later(error)

    @property
    def now(self) -> ColumnElement[Any]:
        """See Dialect."""
        return cast(func.extract("epoch", func.clock_timestamp()), Float)

    @property
    def prediction_log_views(self) -> dict[int, str]:
        """See Dialect."""
        return {1: _PREDICTION_LOG_VIEW_1}


def _connect_args(url: URL, busy_timeout_s: float) -> dict[str, Any]:
    """What the URL leaves open. A server that is gone without a word is noticed within `busy_timeout_s`."""
    given: dict[str, Any] = {
        "connect_timeout": max(2, math.ceil(busy_timeout_s)),
        "tcp_user_timeout": math.ceil(busy_timeout_s * 1000),
        "keepalives_idle": max(1, math.ceil(busy_timeout_s / 2)),
        "keepalives_interval": max(1, math.ceil(busy_timeout_s / 2 / _KEEPALIVE_PROBES)),
        "keepalives_count": _KEEPALIVE_PROBES,
        "application_name": "modelyard",
    }
    if len(_hosts(url)) > 1:
        given["target_session_attrs"] = "read-write"  # whichever is the primary now
    if not is_local(url):
        given |= {"sslmode": "verify-full", "sslrootcert": "system"}
        if url.query.get("sslmode", "verify-full") != "verify-full" or "PGSSLROOTCERT" in os.environ:
            del given["sslrootcert"]  # libpq takes the system's authorities for `verify-full` alone
    return {name: value for name, value in given.items() if name not in url.query} | {"prepare_threshold": None}


def is_local(url: URL) -> bool:
    """Whether nothing of the connection leaves this machine: a socket, or loopback."""
    hosts = _hosts(url) or [os.environ.get("PGHOST", "")]
    if not any(hosts) and ("service" in url.query or "PGSERVICE" in os.environ):
        return False  # libpq's file of services names the host, and is not read here
    if "hostaddr" not in url.query:  # it leads where the host's name may not
        hosts += os.environ.get("PGHOSTADDR", "").split(",")
    return all(host in ("", "localhost") or host.startswith("/") or is_loopback(host) for host in hosts)


def _hosts(url: URL) -> list[str]:
    named = [url.host, *_texts(url.query.get("host")), *_texts(url.query.get("hostaddr"))]
    return [_PORT.sub("", host) for text in named if text for host in text.split(",")]


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _beginning(busy_timeout_s: float) -> Callable[[Connection], None]:
    wait_ms, long_ms = math.ceil(busy_timeout_s * 1000), math.ceil(busy_timeout_s * 1000 * _LONG_FACTOR)

    def begin(connection: Connection) -> None:
        from psycopg import IsolationLevel

        from modelyard.storage.sql.dialects.postgresql_connection import taking_writes

        kind = connection.get_execution_options().get(KIND, Kind.READ)
        # An index over a large log takes the time it takes.
        work_ms = 0 if kind is Kind.UPGRADE else long_ms if kind in _LONG else wait_ms
        driver: Any = connection.connection.driver_connection if kind.reads else taking_writes(connection)
        driver.isolation_level = IsolationLevel.REPEATABLE_READ if kind.reads else IsolationLevel.READ_COMMITTED
        driver.read_only = True if kind.reads else None  # None: as the server says; a standby refuses in clear words
        driver.bound_s = _LOCK_WAITS * wait_ms / 1000 + _ON_THE_WAY_S
        connection.exec_driver_sql("; ".join(_bounds(kind, wait_ms, work_ms, long_ms)))
        driver.bound_s = work_ms / 1000 + _ON_THE_WAY_S if work_ms else math.inf

    return begin


def _bounds(kind: Kind, wait_ms: int, work_ms: int, long_ms: int) -> tuple[str, ...]:
    """In this order: a lock that is waited for in vain is a lock's fault, not a statement's. What a host holds that
    vanished in the middle of a transaction is let go by the server."""
    return (
        f"SET LOCAL lock_timeout = {wait_ms}",
        f"SET LOCAL idle_in_transaction_session_timeout = {long_ms if work_ms and kind is not Kind.MOMENT else 0}",
        *_LOCKS[kind],
        f"SET LOCAL statement_timeout = {work_ms}",
    )


def _texts_of(table: Table, columns: Sequence[str]) -> Callable[[Any], Iterable[str]]:
    """What takes all texts out of a row; a table may have none, or some that are NULL."""
    places = [place for place, name in enumerate(columns) if isinstance(table.c[name].type, String)]
    if not places:
        return lambda row: ()
    taken: Callable[[Any], Iterable[str]] = itemgetter(*places, places[0])
    if any(table.c[columns[place]].nullable for place in places):
        return lambda row: filter(None, taken(row))
    return taken


def _copy(connection: Connection, statement: str, texts: Callable[[Any], Iterable[str]], rows: Rows) -> None:
    import psycopg

    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                # One look at all texts together, because hardly any holds a NUL: a look at each cost as much as COPY.
                copy.write_row(row if "\0" not in "".join(texts(row)) else tuple(map(_storable, row)))
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


def _without_nul(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool
) -> tuple[str, Any]:
    """What is asked for is written as what is stored: a filter finds it, and no text of a caller's is refused."""
    return statement, list(map(_named, parameters)) if many else _named(parameters)


def _named(parameters: Any) -> Any:
    if not isinstance(parameters, dict):
        return parameters
    return {name: _storable(value) for name, value in parameters.items()}


def _storable(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


_PREDICTION_LOG_VIEW_1 = """
CREATE VIEW prediction_log AS
SELECT id,
       to_char(to_timestamp(div("at", 1000000)) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
       || '.' || lpad(mod("at", 1000000)::text, 6, '0') || 'Z' AS time,
       request_id, client, key_id, endpoint, model, version, arm, status, code, "rows", inputs, outputs,
       queue_us, compute_us, total_us, request_bytes, answer_bytes, subject, flag
FROM predictions
"""
"""The prediction log for BI tools, first form: these names and meanings stay."""
