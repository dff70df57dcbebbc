"""PostgreSQL: its transactions, its bounds, its schema. What all databases promise alike is in tests/contract."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, insert, make_url, text

from modelyard.core.errors import InternalError, SettingsError, UnavailableError
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import postgresql_connection
from modelyard.storage.sql.dialects.partitions.postgresql import BEFORE, STRAYS
from modelyard.storage.sql.dialects.postgresql import _connect_args, is_local
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import MIGRATIONS, stored_revision, upgrade_to_head
from modelyard.testing import prediction_record
from postgres.server import Server

BUSY_TIMEOUT_S = 0.2
COUNT = text("SELECT count(*) FROM spool_positions")

VERSIONS = {"alembic_version", "schema_revision"}
"""Alembic's own tables."""


@pytest.fixture
def url(postgres: Server) -> str:
    """A database at the newest schema."""
    return postgres.migrated()


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
    """A second writer waits `busy_timeout_s`, then is told to try again; readers and appends do not wait."""
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
    """Locks and statements by `busy_timeout_s`, what looks at much of the log by twelve times that; an upgrade takes
    what it takes."""
    shown = text("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
    for transaction, work in (
        (database.read, "200ms"), (database.write, "200ms"), (database.append, "200ms"), (database.survey, "2400ms"),
        (lambda: database.write(holds_appends=True), "2400ms"),
    ):  # fmt: skip
        with transaction() as connection:
            assert tuple(connection.execute(shown).one()) == ("200ms", work)
    with database.upgrade() as connection:
        assert tuple(connection.execute(shown).one()) == ("200ms", "0")


def test_the_migrations_lead_to_the_schema(database: Database) -> None:
    """What the migrations make is what schema.py says, but for an index of SQLite; its text compares by bytes."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        made = [day.name for day in dialects.days(connection)]
        ours = MigrationContext.configure(
            connection,
            opts={"include_object": lambda _, name, *__: name not in (*VERSIONS, BEFORE, STRAYS) and name not in made},
        )
        assert [(kind, index.name) for kind, index in compare_metadata(ours, schema.metadata)] == [
            ("add_index", "ix_predictions_figures")
        ]
        assert stored_revision(connection) == schema.HEAD
        indexes = set(connection.scalars(text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")))
        foreign = connection.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND "
                "table_name IN ('predictions', 'outcomes', 'audit_events', 'endpoints') AND data_type IN "
                "('character varying', 'text') AND collation_name IS DISTINCT FROM 'C'"
            )
        ).all()
    known = {index.name for table in schema.metadata.tables.values() for index in table.indexes}
    assert known - indexes == {"ix_predictions_figures"}
    assert foreign == []


def test_the_migrations_can_be_undone_and_done_again(database: Database) -> None:
    """Down to nothing and up again, with one transaction each."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.upgrade() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.read() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
    assert set(tables) == VERSIONS
    upgrade_to_head(database)
    database.ping()


def test_hosts_that_start_at_once_upgrade_once(postgres: Server) -> None:
    """Four of them meet an empty database: one migrates, the others find its work."""
    url, gate = postgres.empty(), threading.Barrier(4)

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
    """`prediction_log` has these columns in this order, with the time as the log shows it."""
    SqlRecordSink(database).store([prediction_record(at=1_700_000_000.000042)], SpoolPosition("f", 1))
    with database.read() as connection:
        row = connection.execute(text("SELECT * FROM prediction_log")).mappings().one()
    assert " ".join(row) == (
        "id time request_id client key_id endpoint model version arm status code rows inputs outputs "
        "queue_us compute_us total_us request_bytes answer_bytes subject flag"
    )
    assert row["time"] == SqlRecordLog(database).get("p1")["time"] == "2023-11-14T22:13:20.000042Z"


def test_a_text_that_postgresql_cannot_hold_does_not_stop_the_drain(database: Database) -> None:
    """A NUL becomes U+FFFD; the batch is stored, its other records as they are."""
    records = [prediction_record("p1", subject="a\0b"), prediction_record("p2", subject="\\N\t\n")]
    assert SqlRecordSink(database).store(records, SpoolPosition("f", 1)).inserted == 2
    log = SqlRecordLog(database)
    assert [log.get(name)["subject"] for name in ("p1", "p2")] == ["a\ufffdb", "\\N\t\n"]
    assert log.count(RecordFilter()) == 2


def _statements(database: Database, records: Sequence[PredictionRecord]) -> tuple[int, str]:
    """How many of these were inserted, and all that was said to the server meanwhile."""
    said: list[str] = []

    def hear(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    try:
        return SqlRecordSink(database).store(records, SpoolPosition("f", 1)).inserted, " ".join(said)
    finally:
        event.remove(database.engine, "before_cursor_execute", hear)


def test_only_a_batch_that_meets_known_ids_goes_by_a_table_of_its_own(database: Database) -> None:
    """A batch of new records is copied straight into the log. One that came before, in part or whole, is stored all
    the same, each record once, and nothing of the first try is left."""
    records = [prediction_record(f"p{number:04}") for number in range(600)]
    inserted, said = _statements(database, records[:500])
    assert (inserted, "TEMPORARY" in said) == (500, False)
    inserted, said = _statements(database, records)
    assert (inserted, "TEMPORARY" in said) == (100, True)
    assert SqlRecordLog(database).count(RecordFilter()) == 600
    with database.read() as connection:
        assert connection.scalar(text("SELECT count(DISTINCT id) FROM predictions")) == 600


def test_what_the_table_refuses_otherwise_is_not_tried_another_way(database: Database) -> None:
    """A name that is longer than its column is the batch's fault, and undoes it."""
    records = [prediction_record("p1"), prediction_record("p2", client="c" * 300)]
    with pytest.raises(InternalError):
        _statements(database, records)
    assert SqlRecordLog(database).count(RecordFilter()) == 0
    assert SqlRecordSink(database).position("f") == 0


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("postgresql:///db", True),
        ("postgresql:///db?host=/run/postgresql", True),
        ("postgresql://localhost/db", True),
        ("postgresql://127.0.0.9/db", True),
        ("postgresql://[::1]/db", True),
        ("postgresql://db.example.com/db", False),
        ("postgresql://10.0.0.1/db", False),
        ("postgresql:///db?host=10.0.0.1", False),
        ("postgresql://localhost/db?host=db.example.com", False),
        ("postgresql://localhost/db?hostaddr=10.0.0.1", False),
        ("postgresql:///db?host=localhost,db.example.com", False),
        ("postgresql:///db?host=localhost:5433&host=127.0.0.1:5434", True),
        ("postgresql:///db?host=localhost:5433&host=10.0.0.1:5434", False),
        ("postgresql:///db?host=::1", True),
        ("postgresql:///db?host=fd00::1:5432", False),
    ],
)
def test_what_leaves_this_machine_is_verified(url: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is neither loopback nor a socket gets verify-full with the system's authorities; what the URL names
    stays as it is."""
    monkeypatch.delenv("PGHOST", raising=False)
    parsed = make_url(url)
    assert is_local(parsed) is local
    assert _connect_args(parsed, 5).get("sslmode") == (None if local else "verify-full")
    named = _connect_args(parsed.update_query_dict({"sslmode": "require", "connect_timeout": "9"}), 5)
    assert not {"sslmode", "sslrootcert", "connect_timeout"} & set(named)
    bundled = _connect_args(parsed.update_query_dict({"sslrootcert": "/rds.pem"}), 5)
    assert "sslrootcert" not in bundled


def test_a_host_from_the_environment_is_verified_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOST stands in for a host that the URL leaves out, PGHOSTADDR for an address, a service for both."""
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert not is_local(make_url("postgresql:///db"))
    monkeypatch.delenv("PGHOST")
    assert not is_local(make_url("postgresql:///db?service=yard"))
    assert is_local(make_url("postgresql://localhost/db?service=yard"))
    monkeypatch.setenv("PGSERVICE", "yard")
    assert not is_local(make_url("postgresql:///db"))
    monkeypatch.delenv("PGSERVICE")
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    assert not is_local(make_url("postgresql://localhost/db"))


@pytest.mark.parametrize("url", ["postgresql://h", "postgresql+asyncpg://h/db", "postgresql+psycopg2://h/db"])
def test_another_driver_or_no_database_is_a_wrong_setting(url: str) -> None:
    """setting_invalid, before anything is connected."""
    with pytest.raises(SettingsError) as caught:
        Database(url, BUSY_TIMEOUT_S)
    assert (caught.value.code, caught.value.detail["field"]) == ("setting_invalid", "database.url")


def test_a_server_that_turns_read_only_is_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooled connection to it is made anew before it reads another time: behind its address another one may be the
    primary. Where nothing changed the same connection is used again."""
    monkeypatch.setattr(postgresql_connection, "LOOK_AGAIN_S", 0.0)

    def backend(statement: str = "SELECT 1") -> int:
        with database.read() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute(statement)
            driver.commit()
            return int(driver.info.backend_pid)

    first = backend()
    assert backend("SET default_transaction_read_only = on") == first
    assert backend() != first


def test_a_write_leaves_a_server_that_turned_read_only_at_once(
    postgres: Server, database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However new the pooled connections to it are, and however many; a new one that cannot write either is refused."""
    name = url.rpartition("/")[2]
    monkeypatch.setattr(postgresql_connection, "LOOK_AGAIN_S", 60.0)
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.close()
    with database.read() as one, database.read() as another:
        for connection in (one, another):
            connection.exec_driver_sql("SELECT 1")
    with pytest.raises(UnavailableError, match="read-only"), database.write():
        raise AssertionError("a write")
    with database.read() as one, database.read() as another:
        for connection in (one, another):
            connection.exec_driver_sql("SELECT 1")
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    with database.write():
        pass


def test_a_refused_write_has_connections_made_anew(postgres: Server, database: Database, url: str) -> None:
    """Whatever the server tells of itself: one that refuses a write is asked by a new connection the next time."""
    name = url.rpartition("/")[2]
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.close()  # what is set there holds for new connections
    with pytest.raises(UnavailableError, match="read-only"), database.write():
        raise AssertionError("a write")
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    with database.write():
        pass


def test_of_several_hosts_the_primary_is_chosen(postgres: Server) -> None:
    """A standby beside it is passed over; where none takes writes, that is said."""
    named = make_url("postgresql://postgres@/db?host=127.0.0.1&host=localhost")
    assert _connect_args(named, 5)["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in _connect_args(make_url("postgresql://127.0.0.1/db"), 5)
    name = postgres.migrated().rpartition("/")[2]
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    port = postgres.port
    both = Database(f"postgresql://postgres@/{name}?host=127.0.0.1:{port}&host=localhost:{port}", 2)
    with pytest.raises(UnavailableError, match="None of the servers"):
        both.open()
    both.close()
