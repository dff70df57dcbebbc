"""MySQL: its transactions, its bounds, its schema. What all databases promise alike is in tests/contract."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, create_engine, event, insert, inspect, make_url, text

from mariadb.server import Server
from modelyard.core.errors import InternalError, SettingsError, UnavailableError
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import mysql
from modelyard.storage.sql.dialects.mysql import MySQL, connect_args, is_local
from modelyard.storage.sql.dialects.partitions.mysql import LEAVING
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import MIGRATIONS, stored_revision, upgrade_to_head
from modelyard.testing import prediction_record

BUSY_TIMEOUT_S = 0.9
COUNT = text("SELECT count(*) FROM spool_positions")
END = SpoolPosition("f", 1)
VERSIONS = {"alembic_version", "schema_revision"}
"""Tables that say where the schema is."""


@pytest.fixture
def url(mariadb: Server) -> str:
    """A database at the newest schema."""
    return mariadb.migrated()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The same, open."""
    opened = Database(url, BUSY_TIMEOUT_S)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def other(url: str) -> Iterator[Database]:
    """Another host's."""
    opened = Database(url, BUSY_TIMEOUT_S)
    yield opened
    opened.close()


def test_two_writers_are_never_at_once_and_the_wait_is_bounded(database: Database, other: Database) -> None:
    """A second writer waits `busy_timeout_s`, in whole seconds, then is told to try again; readers and appends do not
    wait."""
    with database.write():
        other.ping()
        with other.append() as connection:
            connection.execute(insert(schema.spool_positions).values(file="f", offset=1))
        with pytest.raises(UnavailableError) as caught, other.write():
            raise AssertionError("two writers at once")
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 1.0)
    assert "locked" in caught.value.message
    with other.write():
        pass


def test_a_writer_that_reads_the_log_is_alone_with_it(database: Database, other: Database) -> None:
    """`holds_appends` keeps appends out, and waits for those that run; appends run beside each other."""
    with database.append(), other.append():
        pass
    with database.write(holds_appends=True), pytest.raises(UnavailableError), other.append():
        raise AssertionError("an append beside it")
    with database.append(), pytest.raises(UnavailableError), other.write(holds_appends=True):
        raise AssertionError("beside an append")


def test_a_reader_sees_one_state_and_writes_nothing(database: Database, other: Database) -> None:
    """What another host commits during a read is not seen by it; a write in it is refused."""
    with database.read() as connection:
        assert connection.scalar(COUNT) == 0
        with other.write() as writing:
            writing.execute(insert(schema.spool_positions).values(file="f", offset=1))
        assert connection.scalar(COUNT) == 0
    with pytest.raises(UnavailableError, match="read-only"), database.read() as connection:
        connection.execute(insert(schema.spool_positions).values(file="g", offset=1))
    with database.read() as connection:
        assert connection.scalar(COUNT) == 1


def test_every_wait_is_bounded_by_the_setting(database: Database) -> None:
    """Locks by `busy_timeout_s` in whole seconds, statements by twice that, twelve times where they look at much of the
    log; an upgrade takes what it takes, in a session that nobody else gets."""
    names = "innodb_lock_wait_timeout, @@lock_wait_timeout, @@max_statement_time, @@sql_mode, @@time_zone"
    shown = text(f"SELECT @@{names}")
    long = (database.survey, lambda: database.write(holds_appends=True))
    for transaction in (database.read, database.write, *long, database.append):
        with transaction() as connection:
            found = tuple(connection.execute(shown).one())
            work_s = 11 if transaction in long else 2
            assert (*found[:2], float(found[2]), found[4]) == (1, 1, work_s, "+00:00")
            assert "STRICT_ALL_TABLES" in found[3]
    with database.upgrade() as connection:
        assert float(connection.execute(shown).one()[2]) == 0
        session = connection.scalar(text("SELECT connection_id()"))
    with database.read() as connection:
        assert connection.scalar(text("SELECT connection_id()")) != session


def test_a_server_that_says_nothing_is_given_up(mariadb: Server, database: Database) -> None:
    """SIGSTOP, which closes no connection: the sign of life before a transaction, and a new connection, are waited for
    as long as a lock is; then it is store_unavailable. Once it goes on, so do we."""
    database.ping()
    mariadb.pause()
    begun = time.monotonic()
    try:
        with pytest.raises(UnavailableError, match="does not answer in time"):
            database.ping()
    finally:
        mariadb.resume()
    assert time.monotonic() - begun < 10, "two waits of a second each"
    database.ping()


def test_a_statement_whose_answer_never_comes_is_given_up(mariadb: Server, url: str) -> None:
    """SIGSTOP within a transaction: the socket's bound is that of a statement and of a lock together."""
    database = Database(url, 0.1)

    def ask() -> None:
        with database.write() as connection:
            mariadb.pause()
            connection.execute(COUNT)

    try:
        with pytest.raises(UnavailableError, match="does not answer in time"):
            ask()
    finally:
        mariadb.resume()
    database.close()


def _differences(database: Database) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    opts = {"include_object": lambda _, name, *__: name not in {*VERSIONS, LEAVING.name}}
    with database.read() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts=opts), schema.metadata)


_BY_TIME = ("at", "client", "endpoint", "model_version")


@pytest.mark.parametrize(
    "wanted",
    [
        RecordFilter(),
        RecordFilter(status=5),
        RecordFilter(model="m"),
        RecordFilter(version="1", since=1.0),
        RecordFilter(client="c"),
        RecordFilter(endpoint="e"),
    ],
    ids=str,
)
def test_pages_are_read_in_the_order_of_an_index(database: Database, wanted: RecordFilter) -> None:
    """Nothing is sorted: a page would cost what all that matches costs."""
    named = {"model": "m", "version": "1", "client": "c", "endpoint": "e", "status": 500}
    SqlRecordSink(database).store([prediction_record(f"p{n}", at=3.0 + n, **named) for n in range(2000)], END)
    with database.upgrade() as connection:
        connection.exec_driver_sql("ANALYZE TABLE predictions").all()
    asked: list[tuple[str, Any]] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    for cursor in (None, SqlRecordLog(database).page(wanted, 10, None).cursor):
        assert len(SqlRecordLog(database).page(wanted, 10, cursor).records) == 10
    pages = [(sql, values) for sql, values in asked if "inputs" in sql and "FROM predictions" in sql]
    assert len(pages) == 3
    with database.read() as connection:
        plans = [list(connection.exec_driver_sql(f"EXPLAIN {sql}", values)) for sql, values in pages]
    assert all("filesort" not in step[-1] and step[-5] is not None for plan in plans for step in plan), plans


def test_the_migrations_lead_to_the_schema(database: Database) -> None:
    """What the migrations make is what schema.py says, but for indexes: those that PostgreSQL or SQLite alone keeps,
    those that cannot leave rows out here, and those that have the id in them, in the order of pages; its text compares
    by bytes, to the last of them."""
    other = {(found[0], found[1].name) if isinstance(found, tuple) else str(found) for found in _differences(database)}
    assert other == {
        ("add_index", "ix_predictions_figures"),
        ("add_index", "ix_predictions_model"),
        ("add_index", "ix_predictions_failed"),
        ("add_index", "ix_outcomes_waiting"),
        ("add_index", "ix_predictions_flagged"),
        ("remove_index", "ix_predictions_flagged"),
        *((change, f"ix_predictions_{name}") for change in ("add_index", "remove_index") for name in _BY_TIME),
    }
    columns = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND "
        "collation_name <> 'utf8mb4_nopad_bin' AND table_name NOT IN "
        "(SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE())"
    )
    with database.read() as connection:
        assert stored_revision(connection) == schema.HEAD
        assert connection.execute(text(columns)).all() == []


def test_the_migrations_can_be_undone_and_done_again(mariadb: Server) -> None:
    """Down to nothing and up again."""
    from alembic import command
    from alembic.config import Config

    database = Database(mariadb.broken_in(), 30)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.upgrade() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.read() as connection:
        assert set(inspect(connection).get_table_names()) == VERSIONS
    upgrade_to_head(database)
    database.ping()
    database.close()


class _CutError(Exception):
    pass


def _cut_at(engine: Engine, nth: int) -> list[str]:
    """Fails in place of the n-th statement that changes the schema; what was reached."""
    reached: list[str] = []

    def step(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.lstrip().startswith(("CREATE", "ALTER", "DROP", "INSERT", "UPDATE")):
            reached.append(statement)
            if len(reached) == nth + 1:
                raise _CutError

    event.listen(engine, "before_cursor_execute", step)
    return reached


@pytest.mark.parametrize("cuts", [3, pytest.param(1000, marks=pytest.mark.long)])
def test_an_upgrade_that_was_cut_off_goes_on(mariadb: Server, cuts: int) -> None:
    """Wherever an upgrade died, each of its statements being for good, the next start leads to the same schema."""
    whole = Database(mariadb.empty(), 30)
    total = _cut_at(whole.engine, 10_000)
    upgrade_to_head(whole)
    whole.close()
    for nth in random.Random(20261128).sample(range(len(total)), min(cuts, len(total))):
        url = mariadb.empty()
        dying = Database(url, 30)
        reached = _cut_at(dying.engine, nth)
        with pytest.raises(_CutError):
            upgrade_to_head(dying)
        assert len(reached) == nth + 1
        dying.close()
        database = Database(url, 30)
        upgrade_to_head(database)
        assert {found[0] for found in _differences(database)} == {"add_index", "remove_index"}
        with database.read() as connection:
            assert connection.scalar(text("SELECT version FROM snapshot")) == 0
            assert connection.execute(text("SELECT * FROM prediction_log")).all() == []
        database.close()
        mariadb.query(f"DROP DATABASE {url.rpartition('/')[2]}")


def test_a_database_of_somebody_elses_is_refused(mariadb: Server) -> None:
    """A table of a name that we need, in a database that was never ours: nothing is made in it, however often it is
    tried."""
    url = mariadb.empty()
    name = url.rpartition("/")[2]
    mariadb.query("CREATE TABLE clients (id INT PRIMARY KEY)", name)
    database = Database(url, 30)
    for _ in range(2):
        with pytest.raises(SettingsError, match="a table of a name that Modelyard needs"):
            upgrade_to_head(database)
    assert mariadb.query("SHOW TABLES", name) == [("clients",)]
    database.close()


def test_hosts_that_start_at_once_upgrade_once(mariadb: Server) -> None:
    """Four of them meet an empty database: one migrates, the others find its work."""
    url, gate = mariadb.empty(), threading.Barrier(4)

    def start(_number: int) -> str | None:
        host = Database(url, 30)
        try:
            gate.wait(30)
            upgrade_to_head(host)
            with host.read() as connection:
                return stored_revision(connection)
        finally:
            host.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [schema.HEAD] * 4


def test_a_host_waits_for_anothers_upgrade_no_longer_than_bounded(database: Database, other: Database) -> None:
    """Then it is store_unavailable; another database of the same server is not held up."""
    with database.upgrade(), pytest.raises(UnavailableError, match="locked"), other.upgrade():
        raise AssertionError("two upgrades at once")
    with other.upgrade():
        pass


def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    """Parent and child both write after a fork, over sockets of their own."""
    database.ping()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with database.write() as connection:
                connection.execute(insert(schema.spool_positions).values(file="child", offset=1))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with database.write() as connection:
        connection.execute(insert(schema.spool_positions).values(file="parent", offset=1))
        assert connection.scalar(COUNT) == 2


def test_the_view_for_bi_tools_is_that_of_sqlite(database: Database) -> None:
    """`prediction_log` has these columns in this order, with the time as the log shows it, whatever the time zone of
    the session that asks."""
    SqlRecordSink(database).store([prediction_record(at=1_700_000_000.000042)], END)
    with database.read() as connection:
        connection.exec_driver_sql("SET time_zone = '-11:00'")
        row = connection.execute(text("SELECT * FROM prediction_log")).mappings().one()
        connection.exec_driver_sql("SET time_zone = '+00:00'")
    assert " ".join(row) == (
        "id time request_id client key_id endpoint model version arm status code rows inputs outputs "
        "queue_us compute_us total_us request_bytes answer_bytes subject flag"
    )
    assert row["time"] == SqlRecordLog(database).get("p1")["time"] == "2023-11-14T22:13:20.000042Z"


def test_names_differ_by_case_accent_and_a_space_at_the_end(database: Database) -> None:
    """As in SQLite and Python: four subjects, not one."""
    subjects = ["ada", "Ada", "adä", "ada "]
    records = [prediction_record(f"p{n}", subject=subject) for n, subject in enumerate(subjects)]
    assert SqlRecordSink(database).store(records, END).inserted == 4
    log = SqlRecordLog(database)
    assert [log.count(RecordFilter(subject=subject)) for subject in subjects] == [1] * 4


def test_any_text_is_kept(database: Database) -> None:
    """NUL, backslashes, quotes and what lies beyond the first plane come back as they were."""
    subject = "a\0b\\N'\"%s\n\x1a😀"
    SqlRecordSink(database).store([prediction_record(subject=subject)], END)
    assert SqlRecordLog(database).get("p1")["subject"] == subject


def test_what_the_batch_says_twice_is_stored_once(database: Database, other: Database) -> None:
    """Also where the batch takes more than one statement, and one of the later ones meets the known id."""
    large = [prediction_record(f"p{n:02}", inputs={"x": "x" * 100_000}) for n in range(30)]
    SqlRecordSink(other).store([large[25]], END)
    stored = SqlRecordSink(database).store([*large, large[3]], END)
    assert (stored.inserted, stored.known, stored.quarantined) == (29, 2, 0)
    assert SqlRecordLog(database).count(RecordFilter()) == 30


def test_a_record_beyond_the_servers_packet_is_refused_in_words(mariadb: Server, url: str) -> None:
    """Neither the connection nor the rest of the batch is lost over it; with a larger bound it is stored."""
    database = Database(url, 5)
    sink = SqlRecordSink(database)
    large = msgspec.structs.replace(prediction_record("p1", inputs={"x": "x" * 400_000}), raw=b"\xff" * 400_000)
    mariadb.query("SET GLOBAL max_allowed_packet = 1048576")
    try:
        with pytest.raises(UnavailableError, match="raise its max_allowed_packet"):
            sink.store([prediction_record("p0"), large], END)
        with database.read() as connection:
            assert connection.scalar(text("SELECT count(*) FROM predictions")) == 0
    finally:
        mariadb.query("SET GLOBAL max_allowed_packet = 16777216")
    database.close()
    assert sink.store([prediction_record("p0"), large], END).inserted == 2
    database.close()


def test_what_would_be_cut_is_refused(database: Database) -> None:
    """A text that is longer than its column: our fault, and nothing of the batch is stored."""
    records = [prediction_record("p1"), prediction_record("p2", request_id="r" * 129)]
    with pytest.raises(InternalError):
        SqlRecordSink(database).store(records, END)
    assert SqlRecordLog(database).count(RecordFilter()) == 0


def test_hosts_that_store_the_same_records_at_once(url: str) -> None:
    """Batches that overlap, in whatever order: no deadlock, each record once, and counted once."""
    records = [prediction_record(f"p{n:03}") for n in range(200)]
    gate = threading.Barrier(4)

    def drain(number: int) -> int:
        host, chance = Database(url, 30), random.Random(number)
        try:
            gate.wait(30)
            some = [chance.sample(records, 60) for _ in range(8)]
            return sum(SqlRecordSink(host).store(batch, SpoolPosition(f"f{number}", 1)).inserted for batch in some)
        finally:
            host.close()

    with ThreadPoolExecutor(4) as pool:
        inserted = sum(pool.map(drain, range(4)))
    database = Database(url, 30)
    assert SqlRecordLog(database).count(RecordFilter()) == inserted
    database.close()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("mysql:///db", True),
        ("mysql:///db?unix_socket=/run/mysqld/mysqld.sock", True),
        ("mariadb://localhost/db", True),
        ("mysql://127.0.0.9/db", True),
        ("mysql://[::1]/db", True),
        ("mysql://db.example.com/db", False),
        ("mysql://10.0.0.1/db", False),
    ],
)
def test_what_leaves_this_machine_is_verified(url: str, local: bool) -> None:
    """A host that is neither loopback nor a socket gets TLS, verified by the system's authorities, unless the URL says
    otherwise."""
    import ssl

    parsed = make_url(url)
    assert is_local(parsed) is local
    given = connect_args(parsed, 5)
    if local:
        assert given["ssl_disabled"] is True
    else:
        assert given["ssl"].check_hostname
        assert given["ssl"].verify_mode == ssl.CERT_REQUIRED
    asked = connect_args(parsed.update_query_dict({"ssl_mode": "required"}), 5)["ssl"]
    assert (asked.check_hostname, asked.verify_mode) == (False, ssl.CERT_NONE)
    authority = connect_args(parsed.update_query_dict({"ssl_mode": "VERIFY_CA"}), 5)["ssl"]
    assert (authority.check_hostname, authority.verify_mode) == (False, ssl.CERT_REQUIRED)
    assert connect_args(parsed.update_query_dict({"ssl_mode": "DISABLED"}), 5)["ssl_disabled"] is True


@pytest.mark.parametrize(
    "url",
    [
        "mysql://h",
        "mysql+aiomysql://h/db",
        "mysql+mysqldb://h/db",
        "mysql://h/db?local_infile=1",
        "mysql://h/db?read_default_file=/etc/my.cnf",
        "mysql://h/db?ssl_mode=PREFERRED",
        "mysql://h/db?ssl_ca=/no/such/file",
        "mysql://h/db?ssl_mode=DISABLED&ssl_mode=REQUIRED",
    ],
)
def test_another_driver_or_option_is_a_wrong_setting(url: str) -> None:
    """setting_invalid, before anything is connected."""
    with pytest.raises(SettingsError) as caught:
        Database(url, BUSY_TIMEOUT_S)
    assert (caught.value.code, caught.value.detail["field"]) == ("setting_invalid", "database.url")


def test_a_server_that_is_too_old_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, with its version and the oldest that will do."""
    monkeypatch.setattr(mysql, "_OLDEST", {True: (99, 1), False: (99, 1)})
    database = Database(url, BUSY_TIMEOUT_S)
    with pytest.raises(SettingsError, match="too old") as caught:
        database.open()
    assert caught.value.detail["got"].startswith("1")
    database.close()


def test_mysql_gets_what_mariadb_calls_otherwise(tmp_path: Path) -> None:
    """Of a MySQL that is not here: its collation, a default that is an expression, and the bounds in its own words."""
    engine = create_engine("mysql+pymysql://h/db")
    from sqlalchemy.schema import CreateTable

    from modelyard.storage.sql.dialects.mysql_schema import adapt

    adapt(engine.dialect)
    made = str(CreateTable(schema.clients).compile(dialect=engine.dialect))
    assert "COLLATE=utf8mb4_0900_bin" in made
    assert """models LONGTEXT NOT NULL DEFAULT ('["*"]')""" in made
    said = connect_args(make_url("mysql:///db"), 5)["init_command"]
    assert "/*!50720 transaction_isolation = 'REPEATABLE-READ', max_execution_time = 10000, */" in said
    assert "ON DUPLICATE KEY UPDATE digest" in str(MySQL().insert_new(schema.manifests).compile(dialect=engine.dialect))
