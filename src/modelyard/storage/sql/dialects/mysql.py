"""MySQL and MariaDB, through PyMySQL.

* `write` takes the row lock of `snapshot`, as on PostgreSQL. READ COMMITTED: statements behind the lock see what its
  last owner committed, and InnoDB locks no gaps between the rows.
* `append` shares the row of `schema_revision`, which `write(holds_appends=True)` takes alone. A named lock (GET_LOCK)
  has no shared form, and would outlive the transaction.
* The same look tells which days of the log are leaving (partitions/mysql.py).
* A change of the schema commits itself, statement by statement. An upgrade that was cut off goes on at the next start
  and passes over what is there. It runs under a named lock, in a session of its own that ends with it.
* A lock is waited for in whole seconds. The server ends long statements (MariaDB all, MySQL those that read); of a
  server that says nothing at all the socket's own bound is the end.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    create_engine,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.core.errors import InternalError, ModelyardError, SettingsError
from modelyard.storage.sql import schema
from modelyard.storage.sql.dialects import mysql_refusals as refusals
from modelyard.storage.sql.dialects.dialect import KIND, Append, Kind, Rows, is_loopback, shown, wrong_url
from modelyard.storage.sql.dialects.partitions import mysql as partitions

_DRIVERS = ("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql")
_OLDEST = {True: (10, 5), False: (8, 0, 17)}
"""Of MariaDB and of MySQL: older ones have no collation that compares text to its last character, or check nothing."""

_LONG_FACTOR = 12
"""What looks at much of the log, and nobody waits for, may take so many times `busy_timeout_s`: a minute by default."""
_LONG = (Kind.SURVEY, Kind.WRITE_ALL, Kind.RESHAPE)
_ON_THE_WAY_S = 1
"""What an answer that the server gives in time may take to come here."""

_ALONE = "SELECT version FROM snapshot WHERE id = 1 FOR UPDATE"
_ISOLATED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
_BEGINS = {
    Kind.READ: ("START TRANSACTION READ ONLY",),
    Kind.SURVEY: ("START TRANSACTION READ ONLY",),
    Kind.MOMENT: ("START TRANSACTION READ ONLY",),
    Kind.WRITE: (_ISOLATED, _ALONE),
    Kind.WRITE_ALL: (_ISOLATED, _ALONE, partitions.ALONE),
    Kind.APPEND: (_ISOLATED, partitions.SHARED),
    Kind.RESHAPE: (),
}
_CUT_OFF, _BOUND, _LEAVING = "modelyard_cut_off", "modelyard_bound_s", "modelyard_leaving"
_DONE = (1050, 1051, 1060, 1061, 1062, 1091, 1826)
"""There is such a table, column, key, row or constraint already, or none to be dropped."""

_STATEMENT_BYTES = 960 * 1024
"""Servers take 1 MiB at least (max_allowed_packet)."""


class MySQL:
    """dialects.dialect.Dialect for a MySQL or MariaDB server."""

    def engine(self, url: URL, busy_timeout_s: float) -> Engine:
        """An engine that asks a pooled connection for a sign of life before each transaction."""
        if url.drivername not in _DRIVERS or not url.database:
            raise wrong_url("The setting `database.url` names no MySQL database.", shown(url))
        try:
            engine = create_engine(
                url.set(drivername="mysql+pymysql", query={}),
                connect_args=connect_args(url, busy_timeout_s),
                pool_timeout=busy_timeout_s,
                pool_pre_ping=True,
                hide_parameters=True,
            )
        except ImportError:
            raise SettingsError(
                "setting_invalid",
                "The setting `database.url` names MySQL, which the extra `mysql` brings.",
                field="database.url",
                expected="pip install 'modelyard[mysql]'",
            ) from None
        from modelyard.storage.sql.dialects.mysql_schema import adapt

        adapt(engine.dialect)
        event.listen(engine, "begin", _beginning(busy_timeout_s))
        event.listen(engine, "checkin", _resting(busy_timeout_s))
        event.listen(engine, "do_execute", _pass_over_what_is_done)
        return engine

    def prepare(self, engine: Engine, busy_timeout_s: float) -> None:
        """Connects once, so that what is wrong is said at the start."""
        try:
            engine.connect().close()
        except DBAPIError as error:
            raise refusals.at_start(error) from error
        dialect: Any = engine.dialect
        oldest = _OLDEST[bool(dialect.is_mariadb)]
        if dialect.server_version_info < oldest:
            raise SettingsError(
                "setting_invalid",
                "The server that `database.url` names is too old.",
                field="database.url",
                expected="MariaDB 10.5, MySQL 8.0.17, or newer",
                got=".".join(map(str, dialect.server_version_info)),
            )

    def breathe_often(self, engine: Engine, breathe: Callable[[], object]) -> None:
        """Nothing to do: statements run in the server's process."""

    def forget_past(self, engine: Engine) -> None:
        """Nothing to do here: InnoDB purges, and the server's binary log ends by its own settings."""

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves out rows whose primary key is taken. IGNORE would cut texts that are too long, too."""
        from sqlalchemy.dialects import mysql

        first = next(iter(table.primary_key.columns))
        return mysql.insert(table).on_duplicate_key_update({first.name: first})

    def append(self, table: Table, columns: Sequence[str]) -> Append:
        """INSERTs of many rows, a megabyte each, in the order of the key: hosts that store the same records at once
        wait for each other, and not in a circle. IGNORE passes over keys that are taken, and says how often; what else
        it passes over is refused."""
        names = ", ".join(f"`{name}`" for name in columns)
        # Names of ours alone are put into this.
        head = f"INSERT IGNORE INTO {table.name} ({names}) VALUES ".encode()  # noqa: S608
        values = f"({', '.join(['%s'] * len(columns))})"
        key_of = itemgetter(*(columns.index(key.name) for key in table.primary_key.columns))
        in_days = table is schema.predictions

        def append(connection: Connection, rows: Rows) -> int:
            inserted = warned = 0
            ordered = sorted(rows, key=key_of)
            if in_days and ordered and (leaving := connection.info.get(_LEAVING)):
                partitions.drop_if_joined(connection, leaving, key_of(ordered[0]), key_of(ordered[-1]))
            for statement in _statements(connection, head, values, ordered):
                more = _run(connection, statement)
                inserted, warned = inserted + more[0], warned + more[1]
            if inserted + warned != len(rows):
                raise InternalError("internal", "The database would have changed what it was given.")
            return inserted

        return append

    def refusal(self, error: DBAPIError) -> ModelyardError:
        """By the error's number: the server's text may hold hosts and users, and comes in its own language."""
        return refusals.later(error)

    @property
    def now(self) -> ColumnElement[Any]:
        """See Dialect."""
        return func.unix_timestamp(func.sysdate(literal_column("6")))

    @property
    def prediction_log_views(self) -> dict[int, str]:
        """See Dialect."""
        return {1: _PREDICTION_LOG_VIEW_1}


def connect_args(url: URL, busy_timeout_s: float) -> dict[str, Any]:
    """What PyMySQL is given beside host, port, user and database: bounds, the session's settings, TLS, the password
    as UTF-8. SettingsError for an option that is not spoken."""
    wait_s = _wait_s(busy_timeout_s)
    given: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": wait_s,
        "read_timeout": wait_s,
        "write_timeout": wait_s,
        "init_command": _session(busy_timeout_s),
        "program_name": "modelyard",
        "password": (url.password or "").encode(),
    }
    options = dict(url.query)
    path = options.pop("unix_socket", None)
    if path is not None:
        given["unix_socket"] = path
    return given | _tls(options, is_local(url))


def is_local(url: URL) -> bool:
    """Whether nothing of the connection leaves this machine: a socket, or loopback."""
    return "unix_socket" in url.query or url.host in (None, "", "localhost") or is_loopback(str(url.host))


def _tls(options: dict[str, Any], local: bool) -> dict[str, Any]:
    named = {name: options.pop(name, None) for name in ("ssl_mode", "ssl_ca", "ssl_cert", "ssl_key")}
    if options or not all(value is None or isinstance(value, str) for value in named.values()):
        raise wrong_url("The setting `database.url` has an option that is not known, or one twice.")
    mode = named["ssl_mode"] or ("DISABLED" if local and not any(named.values()) else "VERIFY_IDENTITY")
    if mode.upper() == "DISABLED":
        return {"ssl_disabled": True}
    if mode.upper() not in ("REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"):
        raise wrong_url(
            "In `database.url`, `ssl_mode` is one of DISABLED, REQUIRED, VERIFY_CA and VERIFY_IDENTITY.", mode[:32]
        )
    try:
        context = ssl.create_default_context(cafile=named["ssl_ca"])
        if named["ssl_cert"]:
            context.load_cert_chain(named["ssl_cert"], named["ssl_key"])
    except OSError as error:  # ssl.SSLError is one
        raise wrong_url("The files that `ssl_ca` and `ssl_cert` name in `database.url` cannot be used.") from error
    context.check_hostname = mode.upper() == "VERIFY_IDENTITY"
    context.verify_mode = ssl.CERT_NONE if mode.upper() == "REQUIRED" else ssl.CERT_REQUIRED
    return {"ssl": context}


def _wait_s(busy_timeout_s: float) -> int:
    """How long a lock or a connection is waited for: servers count whole seconds."""
    return max(1, math.ceil(busy_timeout_s))


def _work_s(wait_s: int) -> int:
    """What a statement may take: a lock's wait within it is a lock's fault, and said to be."""
    return 2 * wait_s


def _session(busy_timeout_s: float) -> str:
    """The settings of a session. What stands in `/*M!…*/` is MariaDB's, in `/*!5…*/` MySQL's."""
    wait_s, long_s = _wait_s(busy_timeout_s), math.ceil(busy_timeout_s * _LONG_FACTOR)
    return (
        f"SET SESSION /*M!100500 tx_isolation = 'REPEATABLE-READ', max_statement_time = {_work_s(wait_s)},"
        f" idle_transaction_timeout = {long_s}, */"  # what a host holds that vanished is let go
        f" /*!50720 transaction_isolation = 'REPEATABLE-READ', max_execution_time = {_work_s(wait_s) * 1000}, */"
        f" innodb_lock_wait_timeout = {wait_s}, lock_wait_timeout = {wait_s}, time_zone = '+00:00',"
        " sql_mode = 'STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
    )


def _beginning(busy_timeout_s: float) -> Callable[[Connection], None]:
    wait_s = _wait_s(busy_timeout_s)

    def begin(connection: Connection) -> None:
        kind = connection.get_execution_options().get(KIND, Kind.READ)
        if kind is Kind.UPGRADE:
            _begin_upgrade(connection, wait_s)
            return
        driver = connection.connection.driver_connection
        _answers_within(driver, _work_s(wait_s) + _ON_THE_WAY_S)
        work_s = math.ceil(busy_timeout_s * _LONG_FACTOR) if kind in _LONG else _work_s(wait_s)
        if connection.info.get(_BOUND, _work_s(wait_s)) != work_s:  # a round trip where long ones and others meet
            bound = f"/*M!100500 max_statement_time = {work_s} */ /*!50720 max_execution_time = {work_s * 1000} */"
            connection.exec_driver_sql(f"SET SESSION {bound}")
            connection.info[_BOUND] = work_s
        if kind is Kind.MOMENT:  # in a session that nobody uses afterwards
            connection.detach()
            connection.exec_driver_sql("SET SESSION sql_notes = 1 /*M!100500 , idle_transaction_timeout = 0 */")
        for begun in _BEGINS[kind]:
            found = connection.exec_driver_sql(begun)
        _answers_within(driver, work_s + _ON_THE_WAY_S)
        if kind in (Kind.APPEND, Kind.WRITE_ALL):
            leaving = [name for (name,) in found if name is not None]
            if leaving and kind is Kind.WRITE_ALL:
                partitions.drop_leaving(connection)
            connection.info[_LEAVING] = leaving if kind is Kind.APPEND else []

    return begin


def _begin_upgrade(connection: Connection, wait_s: int) -> None:
    """In a session that nobody uses afterwards: its lock and its settings end with it."""
    driver = connection.connection.driver_connection
    connection.detach()
    _answers_within(driver, _work_s(wait_s) + _ON_THE_WAY_S)
    # A server has one set of names for all of its databases.
    named = func.concat("modelyard.upgrade.", func.md5(func.database()))
    if connection.scalar(select(func.get_lock(named, wait_s))) != 1:
        raise refusals.locked()
    connection.exec_driver_sql(
        "SET SESSION sql_notes = 0 /*M!100500 , max_statement_time = 0, idle_transaction_timeout = 0 */"
    )
    tables = set(connection.dialect.get_table_names(connection))
    cut_off = not tables.isdisjoint(("schema_revision", "alembic_version"))
    if not cut_off and not tables.isdisjoint(schema.metadata.tables):
        raise refusals.foreign_tables()
    connection.info[_CUT_OFF] = cut_off
    connection.exec_driver_sql(_ISOLATED)
    _answers_within(driver, None)  # an index over a large log takes the time it takes


def _resting(busy_timeout_s: float) -> Callable[[Any, ConnectionPoolEntry], None]:
    def rest(driver: Any, _entry: ConnectionPoolEntry) -> None:
        if driver is not None:
            _answers_within(driver, _wait_s(busy_timeout_s))

    return rest


def _answers_within(driver: Any, seconds: int | None) -> None:
    """Bounds the wait for each answer from here on. PyMySQL takes this bound when it connects, and has no name for
    changing it later (a test holds the private one to its meaning)."""
    driver._read_timeout = seconds


def _pass_over_what_is_done(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """In an upgrade that goes on where another was cut off: what that one made is there. None leaves the statement to
    SQLAlchemy."""
    if context.execution_options.get(KIND) is not Kind.UPGRADE or not context.root_connection.info.get(_CUT_OFF):
        return None
    try:
        cursor.execute(statement, parameters)
    except Exception as error:
        if refusals.number_of(error) not in _DONE:
            raise
    return True


def _statements(connection: Connection, head: bytes, values: str, rows: Rows) -> Iterator[bytes]:
    """The rows as literals, a megabyte of them behind each `head`. One that is more than the server takes is refused
    before: over it the server would end the connection, which would look like any other loss."""
    driver: Any = connection.connection.driver_connection
    escape = driver.escape
    parts: list[bytes] = []
    size_bytes = 0
    for row in rows:
        # A whole number is its own literal; PyMySQL takes half a microsecond to find that out.
        part = (values % tuple([value if type(value) is int else escape(value) for value in row])).encode()
        if size_bytes + len(part) > _STATEMENT_BYTES and parts:
            yield head + b",".join(parts)
            parts, size_bytes = [], 0
        if len(part) > _STATEMENT_BYTES:
            most = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
            if len(head) + len(part) >= most:
                raise refusals.too_large()
        parts.append(part)
        size_bytes += len(part) + 1
    if parts:
        yield head + b",".join(parts)


def _run(connection: Connection, statement: bytes) -> tuple[int, int]:
    """How many rows an INSERT made, and how many warnings. Past SQLAlchemy, whose errors would show the values."""
    import pymysql

    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor:
            return cursor.execute(statement), cursor.warning_count
    except pymysql.Error as error:
        if not driver.open:
            connection.invalidate(error)
        raise DBAPIError.instance("INSERT", None, error, pymysql.Error) from error


_PREDICTION_LOG_VIEW_1 = """
CREATE VIEW prediction_log AS
SELECT id,
       DATE_FORMAT(TIMESTAMPADD(MICROSECOND, `at`, TIMESTAMP '1970-01-01 00:00:00'), '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')
       AS time,
       request_id, client, key_id, endpoint, model, version, arm, status, code, `rows`, inputs, outputs,
       queue_us, compute_us, total_us, request_bytes, answer_bytes, subject, flag
FROM predictions
"""
"""The prediction log for BI tools, first form: these names and meanings stay. PyMySQL wants `%` doubled."""
