"""The database: its settings, its failures in our words, its schema."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, insert, text

from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings, LimitsSettings, Settings
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.open import DATABASE_FILE, open_stores
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import MIGRATIONS, stored_revision, upgrade_to_head
from modelyard.testing import prediction_record

BUSY_TIMEOUT_S = 0.2

VERSIONS = {"alembic_version", "schema_revision"}
"""Alembic's own tables."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "a folder with % and ü" / "test.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An open database at the newest schema."""
    path.parent.mkdir()
    opened = Database(sqlite_url(path), BUSY_TIMEOUT_S)
    opened.open()
    upgrade_to_head(opened)
    yield opened
    opened.close()


def test_every_connection_has_the_promised_pragmas(database: Database) -> None:
    """WAL, synchronous FULL (2), foreign keys on, the busy timeout of the settings."""
    with database.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 200}


def test_the_file_is_private(database: Database, path: Path) -> None:
    """Database, WAL and shared memory belong to their owner alone."""
    with database.write() as connection:
        connection.execute(insert(schema.spool_positions).values(file="f", offset=1))
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert files == {"test.db": 0o600, "test.db-wal": 0o600, "test.db-shm": 0o600}


def test_a_write_transaction_is_exclusive_and_the_wait_is_bounded(database: Database, path: Path) -> None:
    """A second writer waits `busy_timeout_s`, then is told to try again; readers do not wait at all."""
    other = Database(sqlite_url(path), BUSY_TIMEOUT_S)
    with database.write():
        other.ping()
        with pytest.raises(UnavailableError) as caught, other.write():
            raise AssertionError("two writers at once")
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 1.0)
    assert "locked" in caught.value.message
    with other.write():
        pass
    other.close()


def test_a_reader_sees_one_state(database: Database, path: Path) -> None:
    """What another process commits during a read is not seen by its later statements."""
    counting = text("SELECT count(*) FROM spool_positions")
    other = Database(sqlite_url(path), BUSY_TIMEOUT_S)
    with database.read() as connection:
        before = connection.scalar(counting)
        with other.write() as writing:
            writing.execute(insert(schema.spool_positions).values(file="f", offset=1))
        assert connection.scalar(counting) == before == 0
    with database.read() as connection:
        assert connection.scalar(counting) == 1
    other.close()


def test_a_block_that_raises_is_undone(database: Database) -> None:
    """Any exception undoes the transaction and passes on as it is."""

    def work() -> None:
        with database.write() as connection:
            connection.execute(insert(schema.spool_positions).values(file="f", offset=1))
            raise KeyError

    with pytest.raises(KeyError):
        work()
    with database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM spool_positions")) == 0


@pytest.mark.parametrize(
    ("statement", "family"),
    [
        ("INSERT INTO snapshot (id, version) VALUES (1, 1)", InternalError),
        ("INSERT INTO snapshot (id, version) VALUES (2, 1)", InternalError),
        ("INSERT INTO endpoints VALUES ('e', 'no such model', 1)", InternalError),
        ("SELECT * FROM nothing", UnavailableError),
    ],
)
def test_failures_come_in_our_words(database: Database, statement: str, family: type[ModelyardError]) -> None:
    """Constraints (one snapshot row, foreign keys) hold, and no vendor exception gets out."""
    with pytest.raises(family), database.write() as connection:
        connection.exec_driver_sql(statement)


def test_a_file_that_is_no_database_is_refused_at_open(tmp_path: Path) -> None:
    """A sentence with a code, the file as it was."""
    path = tmp_path / "test.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(SettingsError) as caught:
        Database(sqlite_url(path), BUSY_TIMEOUT_S).open()
    assert caught.value.code == "data_folder_unusable"
    assert path.read_bytes() == b"this is not a database" * 100


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder that is not there."""
    with pytest.raises(SettingsError) as caught:
        Database(sqlite_url(tmp_path / "none" / "test.db"), BUSY_TIMEOUT_S).open()
    assert "No such file or directory" in caught.value.message


@pytest.mark.parametrize(
    "url", ["oracle://user:secret@host/db", "sqlite://", "sqlite:///:memory:", "no url", "", "postgresql://h"]
)
def test_a_url_that_is_not_spoken_is_a_wrong_setting(url: str) -> None:
    """setting_invalid names the setting and never shows the password."""
    with pytest.raises(SettingsError) as caught:
        Database(url, BUSY_TIMEOUT_S)
    assert (caught.value.code, caught.value.detail["field"]) == ("setting_invalid", "database.url")
    assert "secret" not in str(caught.value.detail)


def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    """Parent and child both write after a fork, and the file stays whole."""
    with database.read() as connection:
        inherited = connection.connection.driver_connection
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with database.read() as connection:
                assert connection.connection.driver_connection is not inherited
            with database.write() as connection:
                connection.execute(insert(schema.spool_positions).values(file="child", offset=1))
            database.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with database.write() as connection:
        connection.execute(insert(schema.spool_positions).values(file="parent", offset=1))
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.scalar(text("SELECT count(*) FROM spool_positions")) == 2


def test_threads_share_a_database(database: Database) -> None:
    """Eight threads, more than connections are pooled, read and write without an error."""
    done = threading.Barrier(8)
    patient = Database(database.engine.url.render_as_string(), 30)

    def work(number: int) -> None:
        done.wait(10)
        for turn in range(5):
            with patient.write() as connection:
                connection.execute(insert(schema.spool_positions).values(file=f"{number}-{turn}", offset=1))
            patient.ping()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    with patient.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM spool_positions")) == 40
    patient.close()


def test_the_migrations_lead_to_the_schema(database: Database) -> None:
    """What the migrations make is what schema.py says, but for indexes that other databases keep; HEAD is the newest of
    them."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with database.read() as connection:
        ours = MigrationContext.configure(
            connection, opts={"include_object": lambda _, name, *__: name not in VERSIONS}
        )
        lacking = {(kind, index.name) for kind, index in compare_metadata(ours, schema.metadata)}
        assert lacking == {("add_index", "ix_predictions_at"), ("add_index", "ix_predictions_model")}
        assert stored_revision(connection) == schema.HEAD
        made = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'index'")))
    known = {index.name for table in schema.metadata.tables.values() for index in table.indexes}
    assert known - made == {name for _, name in lacking}
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [schema.HEAD]


def test_the_last_migration_can_be_undone_and_done_again(database: Database) -> None:
    """Down to nothing and up again, with one transaction each."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.read() as connection:
        assert set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'"))) == VERSIONS
    upgrade_to_head(database)
    database.ping()


def test_a_database_of_a_newer_program_is_refused(database: Database) -> None:
    """A revision that this program does not know: a sentence, nothing touched."""
    with database.write() as connection:
        for table in VERSIONS:
            connection.execute(text(f"UPDATE {table} SET version_num = '9999'"))
    with pytest.raises(SettingsError) as caught:
        upgrade_to_head(database)
    assert (caught.value.code, caught.value.detail["got"]) == ("data_folder_unusable", "9999")


def test_processes_that_start_at_once_on_a_new_folder_all_start(tmp_path: Path) -> None:
    """Six processes open one new folder at the same moment: one migrates, the others find its work, all go on."""
    gate, opened = os.pipe()
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(opened)
                os.read(gate, 1)  # ends for all at once, when the parent closes its end
                stores = open_stores(Settings(), tmp_path / "data")
                stores.keys.ensure_client(f"c{number}", None, None, None)
                stores.close()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(opened)
    os.close(gate)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    stores = open_stores(Settings(), tmp_path / "data")
    assert sorted(client.slot for client in stores.keys.snapshot().clients) == list(range(6))
    stores.close()


def test_a_start_with_nothing_to_migrate_imports_no_alembic(tmp_path: Path) -> None:
    """Start-up time: the migration library is imported only when there is something to migrate."""
    open_stores(Settings(), tmp_path / "data").close()
    program = (
        "import sys; from pathlib import Path; from modelyard.core.settings import Settings;"
        "from modelyard.storage.sql.open import open_stores; open_stores(Settings(), Path(sys.argv[1])).close();"
        "print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "data")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"


def test_open_stores_makes_a_private_folder(tmp_path: Path) -> None:
    """The data folder is made 0700 with the database in it; the limit setting gives new clients their rate."""
    data = tmp_path / "data"
    stores = open_stores(Settings(limits=LimitsSettings(default_rate="5/m")), data)
    client = stores.keys.ensure_client("a", None, None, None)
    assert (client.rate_count, client.rate_period_s, client.burst) == (5, 60.0, 5)
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / DATABASE_FILE).is_file()
    stores.ping()
    stores.close()
    stores.close()


def test_open_stores_follows_the_database_url(tmp_path: Path) -> None:
    """`database.url` puts the database elsewhere."""
    url = sqlite_url(tmp_path / "elsewhere.db")
    open_stores(Settings(database=DatabaseSettings(url=url)), tmp_path / "data").close()
    assert (tmp_path / "elsewhere.db").is_file()
    assert not (tmp_path / "data" / DATABASE_FILE).exists()


@pytest.mark.parametrize("kind", ["file", "rate"])
def test_open_stores_says_what_is_wrong(tmp_path: Path, kind: str) -> None:
    """A file in the place of the folder, a rate that is none: SettingsError, never another error."""
    (tmp_path / "data").write_text("a file")
    rate = "often" if kind == "rate" else "5/m"
    with pytest.raises(SettingsError) as caught:
        open_stores(Settings(limits=LimitsSettings(default_rate=rate)), tmp_path / "data")
    assert caught.value.detail["field"] == ("limits.default_rate" if kind == "rate" else "data")


def test_the_view_for_bi_tools_is_stable(database: Database, path: Path) -> None:
    """`prediction_log` has these columns in this order, with the time as text; any SQLite client reads it."""
    SqlRecordSink(database).store([prediction_record(at=1_700_000_000.000042)], SpoolPosition("f", 1))
    client = sqlite3.connect(path)
    cursor = client.execute("SELECT * FROM prediction_log")
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchone(), strict=True))
    client.close()
    assert " ".join(names) == (
        "id time request_id client key_id endpoint model version arm status code rows inputs outputs "
        "queue_us compute_us total_us request_bytes answer_bytes subject flag"
    )
    assert row["time"] == SqlRecordLog(database).get("p1")["time"] == "2023-11-14T22:13:20.000042Z"
    assert row["inputs"] == '{"x":[[1.0,2.0]]}'


def test_a_full_disk_is_store_unavailable(database: Database) -> None:
    """A batch that does not fit is refused whole, and stored once there is room."""
    large = [prediction_record(f"p{number}", inputs="x" * 100_000) for number in range(20)]
    sink, log = SqlRecordSink(database), SqlRecordLog(database)
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=60")
    with pytest.raises(UnavailableError) as caught:
        sink.store(large, SpoolPosition("f", 1))
    assert "full" in caught.value.message
    assert (log.count(RecordFilter()), sink.position("f")) == (0, 0)
    database.close()  # the next connection has its bound of pages back
    assert sink.store(large, SpoolPosition("f", 1)).inserted == 20


def test_writers_of_one_process_wait_in_line(database: Database) -> None:
    """D7: who would change while another thread does waits for it here and does not ask SQLite, where those that come
    later could pass it until its time is over. Who waits too long is told so, and its turn comes as before."""
    hasty = Database(database.engine.url.render_as_string(), 0.05)
    begun: list[str] = []
    event.listen(hasty.engine, "begin", lambda _: begun.append("begin"))

    def change() -> None:
        with hasty.write() as connection:
            connection.execute(text("SELECT 1"))

    with ThreadPoolExecutor(1) as other:
        with hasty.write(), pytest.raises(UnavailableError) as caught:
            other.submit(change).result(60)
        assert "Too many changes wait" in caught.value.message
        assert begun == ["begin"]
        other.submit(change).result(60)
    hasty.close()
