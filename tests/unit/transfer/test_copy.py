"""A copy is what its source was at one moment, whatever lies between the two (promises P1, P5)."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from installation import NOT_COPIED, between, filled, go_on, stores_database
from sqlalchemy import text

from modelyard.app.folder import DataFolder
from modelyard.audit.ports import AuditFilter
from modelyard.core.errors import CommandError, ConflictError, ModelyardError, SettingsError
from modelyard.core.settings import DatabaseSettings, Settings, load_settings
from modelyard.journal.ids import first_id
from modelyard.journal.ports import SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.storage.file.secret import installation_secret
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.open import open_stores
from modelyard.testing import FakeClock, prediction_record
from modelyard.transfer.copy import Copied, copy
from modelyard.transfer.side import sides
from postgres.server import Server

VERSIONS = {"alembic_version", "schema_revision"}


def copied(source: str | Path, target: str | Path) -> Copied:
    """A copy from one to the other."""
    return copy(*between(source, target), FakeClock(), 0.0)


def refused(source: str | Path, target: str | Path) -> ModelyardError:
    """Why it is refused."""
    with pytest.raises(ModelyardError) as caught:
        copied(source, target)
    return caught.value


def events(settings: Settings) -> list[tuple[str, str]]:
    """Action and hash of every audit event, oldest first."""
    stores = open_stores(settings, settings.data)
    try:
        return [(one.action, one.hash) for page in stores.audit.export(AuditFilter(), 100) for one in page]
    finally:
        stores.close()


def test_all_is_there_and_nothing_else_changed(source: Settings, tmp_path: Path) -> None:
    """Every table has its rows; versions can be opened; secret and marks came along; the audit log is one chain in
    both, with the copy's begin and end; a server would start on it."""
    before = tables_of(source.data / "modelyard.db")
    made = copied(source.data, tmp_path / "new")
    assert set(made.tables) == set(schema.metadata.tables) - NOT_COPIED
    assert all(found.rows for found in made.tables.values()), made.tables
    assert (made.removed, made.versions, made.waiting, made.private) == (0, 2, 0, "copied")
    after = tables_of(source.data / "modelyard.db")
    assert {name: rows for name, rows in after.items() if name != "audit_events"} == {
        name: rows for name, rows in before.items() if name != "audit_events"
    }
    new = load_settings(data=tmp_path / "new")
    for name, rows in tables_of(new.data / "modelyard.db").items():
        assert name in {*NOT_COPIED, *VERSIONS} or rows == after[name], name
    assert events(new) == events(source)
    assert [action for action, _ in events(new)][-2:] == ["copy:start", "copy:finish"]
    stores = open_stores(new, new.data)
    try:
        assert stores.audit.verify().sound
        for version in stores.registry.versions("tree"):
            assert (stores.artifacts.open(version.digest) / "deep/more.bin").read_bytes() == bytes(500)
    finally:
        stores.close()
    assert installation_secret(new.data) == installation_secret(source.data)
    assert [path.name for path in (new.data / "unhealthy").iterdir()] == [f"{7:016x}"]
    assert not DataFolder(new.data).locked()


def tables_of(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a SQLite file, by table."""
    with closing(sqlite3.connect(database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_there_and_back_through_a_server(
    source: Settings, server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SQLite, a server, SQLite: every table has the same sum on the way and at the end, and so has the audit log,
    hash by hash; only a NUL in a text may be U+FFFD afterwards. A configuration file says where the files are."""
    url = request.getfixturevalue(server).empty()
    there = copied(source.data, url)
    assert (there.private, there.versions) == ("shared", 0)
    config = tmp_path / "server.toml"
    config.write_text(f'data = "{source.data}"\n[database]\nurl = "{url}"\n')
    back = copied(config, tmp_path / "back")
    assert (back.versions, back.private) == (2, "copied")
    same = set(there.tables) - {"audit_events"}
    assert {name: there.tables[name] for name in same} == {name: back.tables[name] for name in same}
    new = load_settings(data=tmp_path / "back")
    chain = events(new)
    assert chain[: len(events(source))] == events(source), "the chain went on in the database, not in the folder"
    before, after = tables_of(source.data / "modelyard.db"), tables_of(new.data / "modelyard.db")
    for name in set(before) - NOT_COPIED - {"audit_events", *VERSIONS, "predictions"}:
        assert before[name] == after[name], name
    assert _without_nul(before["predictions"]) == _without_nul(after["predictions"])
    assert copy(*between(config, tmp_path / "back"), FakeClock(), 0.0).written.keys() == {"audit_events"}


def _without_nul(rows: list[tuple[object, ...]]) -> list[list[object]]:
    return [[cell.replace("\0", "\ufffd") if isinstance(cell, str) else cell for cell in row] for row in rows]


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_a_later_run_brings_the_rest(
    source: Settings, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was added, changed and removed meanwhile; what is there already is not written again."""
    target = tmp_path / "new" if kind == "sqlite" else request.getfixturevalue(kind).empty()
    copied(source.data, target)
    assert copied(source.data, target).written.keys() == {"audit_events"}
    go_on(source)
    again = copied(source.data, target)
    assert again.removed == 11  # ten records and a hold
    assert again.written == {
        "audit_events": again.written["audit_events"],
        "api_keys": 2, "clients": 1, "key_uses": 1, "outcomes": 3, "predictions": 2, "snapshot": 1, "traffic": 2,
        "endpoints": 1, "pending_rollups": 1,
    }  # fmt: skip


def test_the_copy_can_be_served_and_then_takes_no_more(source: Settings, tmp_path: Path) -> None:
    """Once the target has an event of its own, another run would undo what was done there: refused."""
    copied(source.data, tmp_path / "new")
    new = load_settings(data=tmp_path / "new")
    stores = open_stores(new, new.data, FakeClock())
    stores.endpoints.set_traffic("tree", (("1", 100),))
    stores.close()
    before = tables_of(new.data / "modelyard.db")
    error = refused(source.data, tmp_path / "new")
    assert error.code == "copy_target_taken"
    assert "it was served" in error.message
    go_on(source)
    error = refused(source.data, tmp_path / "new")
    assert (error.code, "is not the source's" in error.message) == ("copy_target_taken", True)
    assert tables_of(new.data / "modelyard.db") == before


def test_days_are_made_before_their_records_come(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """In PostgreSQL copied records lie in their days, however old: a later day could not be made in time once many
    were among those of no day. A second run brings what came since into a day of its own."""
    at = [1_700_000_000.0, 1_700_000_060.0, 1_760_000_000.0]
    url = postgres.empty()
    store(source, [prediction_record(first_id(when), at=when) for when in at])
    copied(source.data, url)
    store(source, [prediction_record(first_id(when := 1_761_000_000.0), at=when)])
    copied(source.data, url)
    found = {day: rows_of(postgres, url, f"predictions_{day}") for day in ("2023_11_14", "2025_10_09", "2025_10_20")}
    assert found == {"2023_11_14": 2, "2025_10_09": 1, "2025_10_20": 1}


def store(source: Settings, records: list[PredictionRecord]) -> None:
    """As the drain would."""
    stores = open_stores(source, source.data)
    stores.sink.store(records, SpoolPosition("more", len(records)))
    stores.close()


def rows_of(postgres: Server, url: str, table: str) -> int:
    """How many there are."""
    return int(postgres.query(f"SELECT count(*) FROM {table}", url.rpartition("/")[2]))


def test_a_target_with_something_else_is_named(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """Another installation, somebody else's tables, records without an audit log, another folder's secret: what is
    there is named, and stays."""
    filled(tmp_path / "other", 5)
    error = refused(source.data, tmp_path / "other")
    assert error.code == "copy_target_taken"
    assert "clients: 1" in error.message
    url = postgres.empty()
    postgres.query("CREATE TABLE payroll (x int)", url.rpartition("/")[2])
    error = refused(source.data, url)
    assert (error.code, "payroll" in error.message) == ("copy_target_taken", True)
    bare = load_settings(data=tmp_path / "bare")
    stores = open_stores(bare, bare.data)
    stores.sink.store([prediction_record("foreign")], SpoolPosition("f", 1))
    stores.close()
    error = refused(source.data, bare.data)
    assert (error.code, "predictions: 1" in error.message) == ("copy_target_taken", True)
    (tmp_path / "secret").mkdir()
    installation_secret(tmp_path / "secret")
    assert "redaction.key" in refused(source.data, tmp_path / "secret").message


def test_a_target_that_is_served_is_refused(source: Settings, tmp_path: Path) -> None:
    """A server that has the target's folder keeps it."""
    server = DataFolder(tmp_path / "new")
    server.open()
    server.lock()
    try:
        assert refused(source.data, tmp_path / "new").code == "data_folder_in_use"
    finally:
        server.unlock()


def test_one_place_is_not_copied_onto_itself(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """Whether the addresses are equal, or two names lead to one database."""
    (tmp_path / "link").symlink_to(source.data)
    with pytest.raises(CommandError) as caught:
        between(source.data, tmp_path / "link")
    assert caught.value.code == "copy_same_side"
    url = postgres.empty()
    copied(source.data, url)
    other = url.replace("127.0.0.1", "localhost")
    assert refused(url, other).code == "copy_same_side"
    settings = Settings(database=DatabaseSettings(url=url))
    open_stores(settings, tmp_path / "alive").close()  # the lease was given back


def test_a_source_must_be_there_and_of_today(tmp_path: Path, source: Settings) -> None:
    """No database is made where there was none; an older schema is not changed."""
    assert refused(tmp_path / "nothing", tmp_path / "new").code == "data_folder_unusable"
    assert not (tmp_path / "nothing").exists()
    with stores_database(source) as connection:
        connection.exec_driver_sql("UPDATE schema_revision SET version_num = '0003'")
    assert refused(source.data, tmp_path / "new").code == "schema_outdated"


def test_files_that_are_nowhere_are_said(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """A version without its files is no version: the copy does not end, and its target does not open."""
    url = postgres.empty()
    copied(source.data, url)
    error = refused(url, tmp_path / "new")
    assert (error.code, error.detail["field"]) == ("copy_failed", "--from-artifacts")
    with pytest.raises(SettingsError) as caught:
        open_stores(load_settings(data=tmp_path / "new"), tmp_path / "new")
    assert caught.value.code == "copy_unfinished"


def test_a_row_that_arrives_otherwise_is_found(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """A target that changes what it is given: the copy says which table differs, and ends with it."""
    url = postgres.migrated()
    postgres.query(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.status := 201; RETURN NEW; END $$; "
        "CREATE TRIGGER spoil BEFORE INSERT ON predictions FOR EACH ROW WHEN (NEW.id = 'p00007') "
        "EXECUTE FUNCTION spoil()",
        url.rpartition("/")[2],
    )
    error = refused(source.data, url)
    assert (error.code, "`predictions`" in error.message) == ("copy_differs", True)


def test_a_broken_chain_is_said(source: Settings, tmp_path: Path) -> None:
    """An audit log that was changed in the source arrives as it is, and is found."""
    with stores_database(source) as connection:
        connection.execute(text("UPDATE audit_events SET subject = 'key:other' WHERE sequence = 2"))
    error = refused(source.data, tmp_path / "new")
    assert (error.code, "event 2" in error.message) == ("copy_differs", True)


def test_two_sources_do_not_meet_in_one_target(source: Settings, postgres: Server, tmp_path: Path) -> None:
    """While the copy of one is under way the other waits its turn."""
    url = postgres.migrated()
    database = Database(url, 5.0)
    from modelyard.storage.sql.leases import SqlLeases

    assert SqlLeases(database).acquire("copy", "another source", 60.0)
    assert isinstance(refused(source.data, url), ConflictError)
    database.close()


def test_the_spool_is_stored_first(source: Settings, tmp_path: Path) -> None:
    """What a server that is gone left in its spool is in the copy; what cannot be stored is counted."""
    spool = source.data / "spool"
    spool.mkdir(exist_ok=True)
    from modelyard.core.settings import JournalSettings
    from modelyard.journal.frame import encode_frame
    from modelyard.journal.spool import SpoolWriter

    writer = SpoolWriter(spool, 7, JournalSettings(), FakeClock())
    writer.append(encode_frame(prediction_record("spooled").header, b"{}", b"{}"))
    writer.close()
    made = copied(source.data, tmp_path / "new")
    assert made.waiting == 0
    with closing(sqlite3.connect(tmp_path / "new" / "modelyard.db")) as connection:
        assert connection.execute("SELECT count(*) FROM predictions WHERE id = 'spooled'").fetchone() == (1,)


def test_sides_are_read_as_they_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is a folder whatever the environment says; a file is read whole; a URL takes the other side's bucket;
    passwords are not shown."""
    monkeypatch.setenv("MODELYARD_DATABASE__URL", "postgresql://wrong@nowhere/x")
    source, target = sides(str(tmp_path), "postgresql://u:secret@127.0.0.1/y", "s3://bucket-1/p", None)
    assert source.settings.database.url is None
    assert source.settings.artifacts.url == target.settings.artifacts.url == "s3://bucket-1/p"
    assert target.folder is None
    assert "secret" not in target.shown
    assert sides(str(tmp_path), "iam://u@db.example.com:5432/y", None, None)[1].shown.startswith("iam://u@")
    secret = "aws-sm://arn:aws:secretsmanager:eu-central-1:123456789012:secret:db#url"
    assert "123456789012" not in sides(str(tmp_path), secret, None, None)[1].shown
    monkeypatch.delenv("MODELYARD_DATABASE__URL")
    (tmp_path / "a.toml").write_text(f'data = "{tmp_path}/d"\n[database]\nurl = "postgresql://h/z"\n')
    source, target = sides(str(tmp_path / "a.toml"), str(tmp_path / "d"), None, None)
    assert source.settings.database.url == "postgresql://h/z"
    assert target.folder is None, "one data folder, two databases"
    with pytest.raises(SettingsError):
        sides(str(tmp_path), "mysqlish://x/y", None, None)
    with pytest.raises(SettingsError):
        sides(str(tmp_path), "postgresql://x/y", None, "not a bucket")


def test_the_report_is_json(source: Settings, tmp_path: Path) -> None:
    """What `--json` prints has the sums of every table."""
    from typer.testing import CliRunner

    from modelyard.cli.main import app

    ran = CliRunner().invoke(app, ["copy", "--from", str(source.data), "--to", str(tmp_path / "new"), "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["tables"]["predictions"]["rows"] == 121
    assert len(told["tables"]["predictions"]["sha256"]) == 64
    again = CliRunner().invoke(app, ["copy", "--from", str(source.data), "--to", str(tmp_path / "new")])
    assert again.exit_code == 0
    assert "equal on both sides" in again.stdout


def test_a_password_among_the_options_is_shown_nowhere() -> None:
    """A side's name goes into the audit log and to the terminal: without the password, wherever the URL has it."""
    url = "postgresql://me:hunter1@db.example.com/yard?password=hunter2&sslpassword=hunter3"
    _, target = sides("somewhere", url, None, None)
    assert target.shown == "postgresql://me:***@db.example.com/yard"
    with pytest.raises(SettingsError) as caught:
        Database("postgresql://me@db.example.com?password=hunter2", 1.0)
    assert "hunter" not in repr(caught.value.detail)


@pytest.mark.parametrize(
    ("server", "asked"),
    [("postgres", "SHOW idle_in_transaction_session_timeout"), ("mariadb", "SELECT @@idle_transaction_timeout")],
)
def test_no_server_ends_the_transaction_that_a_copy_reads_in(
    server: str, asked: str, request: pytest.FixtureRequest
) -> None:
    """While files are copied and the target is compared nothing is asked of the source, for minutes where the log is
    long: its transaction has no end for that. Others keep theirs, also on the same connections."""
    database = Database(request.getfixturevalue(server).migrated(), 0.5)
    database.open()
    try:
        for begin, bounded in ((database.read, True), (database.moment, False), (database.read, True)):
            with begin() as connection:
                said = str(connection.exec_driver_sql(asked).scalar_one())
                assert (said not in ("0", "0.000000")) is bounded, (begin, said)
    finally:
        database.close()
