"""The prediction log's daily partitions in PostgreSQL: where records go, how a day leaves, how a table of before
becomes one of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, text

from modelyard.audit.ports import AuditFilter
from modelyard.core.errors import ConflictError
from modelyard.core.lease import Fence
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.journal.ids import PredictionIds
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Cutoffs, Deleted, Hold
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.analytics.pending import waiting_between
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects.partitions.day import AHEAD_DAYS, day_of
from modelyard.storage.sql.open import open_stores
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.quarantine import SqlQuarantineLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import MIGRATIONS, upgrade_to_head
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record
from postgres.server import Server

DAY_S = 86_400
T0 = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
END = SpoolPosition("f", 1)
EVERYTHING = RecordFilter()
OLD = "00ff" + "0" * 22


def record(at: float, epoch: int = 1, **fields: Any) -> PredictionRecord:
    """One with an id of its time."""
    return prediction_record(PredictionIds(epoch, lambda: at).next(), at=at, **fields)


@pytest.fixture
def url(postgres: Server) -> str:
    """A database at the newest schema."""
    return postgres.migrated()


@pytest.fixture
def stores(url: str, tmp_path: Path) -> Iterator[Stores]:
    """All of them, with partitions from T0 on."""
    opened = open_stores(Settings(database=DatabaseSettings(url=url)), tmp_path / "data")
    opened.retention.mark_swept(T0)
    yield opened
    opened.close()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The same, from beside."""
    opened = Database(url, 5)
    yield opened
    opened.close()


def where(connection: Connection) -> dict[str, str]:
    """Which partition each record is in."""
    rows = connection.execute(text("SELECT id, tableoid::regclass::text FROM predictions ORDER BY id"))
    return {row[0]: row[1] for row in rows}


def names(database: Database) -> list[str]:
    """The days that there are."""
    with database.read() as connection:
        return [day.name for day in dialects.days(connection)]


def sweep(stores: Stores, until: float, most: int = 100) -> list[Deleted]:
    """Batch after batch, as the sweeper does."""
    found, since = [], 0.0
    while True:
        found.append(stores.retention.delete(Cutoffs(until, until), since, most))
        if found[-1].at is None:
            return found
        since = found[-1].at


def certificates(stores: Stores) -> list[dict[str, Any]]:
    """What the audit log has of deletions, oldest first."""
    page = stores.audit.page(AuditFilter(action="retention:delete"), 100, None)
    assert not stores.audit.verify().problems
    return [event.after for event in reversed(page.events)]


def test_records_go_to_their_days(stores: Stores, database: Database) -> None:
    """By the time in their ids, to the second; what has none, or a day that was not made, goes where it is found all
    the same."""
    cases = [
        (record(T0), "predictions_2026_03_01"),
        (record(T0 + DAY_S - 1), "predictions_2026_03_01"),
        (record(T0 + DAY_S, 2), "predictions_2026_03_02"),
        (record(T0 + 400 * DAY_S), "predictions_strays"),
        (record(T0 - DAY_S), "predictions_strays"),
        (prediction_record("tree-1"), "predictions_strays"),
        (prediction_record(OLD), "predictions_before"),
    ]
    records = [one for one, _name in cases]
    assert stores.sink.store(records, END).inserted == len(cases)
    with database.read() as connection:
        assert where(connection) == {one.header.id: name for one, name in cases}
    for one in records:
        assert stores.log.get(one.header.id)["id"] == one.header.id
    again = stores.sink.store(records, END)
    assert (again.inserted, again.known) == (0, len(cases))
    changed = [prediction_record(one.header.id, at=T0, inputs={"x": 9}) for one in records]
    assert stores.sink.store(changed, END).quarantined == len(cases)
    assert stores.log.count(EVERYTHING) == len(cases)


def test_a_lookup_reads_one_partition(stores: Stores, database: Database) -> None:
    """An id tells the planner where to look."""
    one = record(T0 + 5)
    statement = text("EXPLAIN (COSTS OFF) SELECT 1 FROM predictions WHERE id = :id")
    with database.read() as connection:
        plan = "\n".join(connection.scalars(statement, {"id": one.header.id}))
    assert "predictions_2026_03_01" in plan
    assert plan.count("predictions_") == plan.count("predictions_2026_03_01")


def test_days_are_made_ahead(stores: Stores, database: Database) -> None:
    """Whenever a sweep ended: today and a week; what is there is left alone, and a day that has begun among the strays
    stays there."""
    made = names(database)
    assert made == [f"predictions_2026_03_{day:02}" for day in range(1, AHEAD_DAYS + 2)]
    stores.retention.mark_swept(T0)
    assert names(database) == made
    begun = record(T0 + (AHEAD_DAYS + 2) * DAY_S)
    stores.sink.store([begun], END)
    stores.retention.mark_swept(T0 + 3 * DAY_S)
    later = [name for name in names(database) if name not in made]
    assert later == ["predictions_2026_03_09", "predictions_2026_03_11"]
    assert stores.log.get(begun.header.id)["id"] == begun.header.id


def test_a_day_leaves_as_a_whole(stores: Stores, database: Database) -> None:
    """P13: its partition is gone with its outcomes, and a certificate says so; the days beside it are as they were, and
    what lies elsewhere leaves in batches."""
    day = [record(T0 + second * 60, 1 + second) for second in range(10)]
    other = [record(T0 + DAY_S + 5), prediction_record(OLD, at=T0 + 5), record(T0 - DAY_S)]
    stores.sink.store([*day, *other], END)
    given = [Outcome(one.header.id, 0, 1, T0, "acme", "k1") for one in (day[3], other[0], other[1])]
    stores.outcomes.put(given, T0)
    done = sweep(stores, T0 + DAY_S)
    assert [(batch.predictions, batch.outcomes) for batch in done] == [(10, 1), (2, 1)]
    assert [one["id"] for one in stores.log.page(EVERYTHING, 100, None).records] == [other[0].header.id]
    assert [one["item"] for one in stores.outcomes.history(other[0].header.id)] == [0]
    assert "predictions_2026_03_01" not in names(database)
    assert "predictions_2026_03_02" in names(database)
    whole, rest = certificates(stores)
    assert (whole["partition"], whole["predictions"], whole["outcomes"]) == ("predictions_2026_03_01", 10, 1)
    assert (whole["first"], whole["last"]) == ("2026-03-01T00:00:00.000000Z", "2026-03-01T00:09:00.000000Z")
    assert (rest["predictions"], rest["outcomes"]) == (2, 1)
    assert "partition" not in rest


def test_a_day_that_leaves_is_rolled_up_again(stores: Stores, database: Database) -> None:
    """DATA-3: the minutes from its first record to its last are noted with it: figures follow the log."""
    stores.sink.store([record(T0 + 60), record(T0 + 3600, 2)], END)
    with database.write() as connection:
        connection.execute(delete(schema.pending_rollups))
    sweep(stores, T0 + 2 * DAY_S)
    with database.read() as connection:
        assert waiting_between(connection, int(T0), int(T0) + 60) == 0
        assert waiting_between(connection, int(T0), int(T0) + DAY_S) == 60


def test_a_day_of_which_something_is_held_leaves_in_batches(stores: Stores, database: Database) -> None:
    """S19: what the hold matches stays; once it is released the rest of the day goes as a whole."""
    stores.holds.add(Hold("h", "case 1", T0, subject="s"))
    kept = record(T0 + 5, 9, subject="s")
    stores.sink.store([kept, *[record(T0 + second) for second in (100, 200, 300)]], END)
    assert [(batch.predictions, batch.at is None) for batch in sweep(stores, T0 + 3 * DAY_S, most=2)][-1][1]
    assert [one["id"] for one in stores.log.page(EVERYTHING, 100, None).records] == [kept.header.id]
    assert "predictions_2026_03_01" in names(database)
    assert "predictions_2026_03_02" not in names(database), "an empty day beside it"
    stores.holds.release("h")
    assert sweep(stores, T0 + 3 * DAY_S)[0].predictions == 1
    assert "predictions_2026_03_01" not in names(database)


def test_what_went_to_an_archive_leaves_its_day_empty(stores: Stores, database: Database) -> None:
    """Where records are archived first, only days without any are dropped, and need no certificate."""
    stores.sink.store([record(T0 + 5)], END)
    stores.retention.delete(Cutoffs(T0 + 3 * DAY_S, 0.0), 0.0, 100, records=False)
    assert names(database)[0] == "predictions_2026_03_01"
    assert "predictions_2026_03_02" not in names(database)
    assert certificates(stores) == []
    assert stores.log.count(EVERYTHING) == 1


def test_a_record_that_is_not_due_keeps_its_day(stores: Stores, database: Database) -> None:
    """P10: a worker's clock was wrong, its id says another day than its record: the record's own time decides."""
    late = prediction_record(PredictionIds(7, lambda: T0 + 50).next(), at=T0 + 30 * DAY_S)
    stores.sink.store([late, record(T0 + 5)], END)
    assert sum(batch.predictions for batch in sweep(stores, T0 + 2 * DAY_S)) == 1
    assert stores.log.get(late.header.id)["id"] == late.header.id
    assert "predictions_2026_03_01" in names(database)


def test_a_day_is_not_taken_by_who_lost_the_lease(stores: Stores) -> None:
    """The fence is looked at before anything goes."""
    stores.sink.store([record(T0 + 5)], END)
    with pytest.raises(ConflictError):
        stores.retention.delete(Cutoffs(T0 + 2 * DAY_S, 0.0), 0.0, 100, Fence("retention", 7))
    assert stores.log.count(EVERYTHING) == 1


def test_a_table_of_before_becomes_a_partition(postgres: Server) -> None:
    """D9: what an older program stored is there after the upgrade, found by the same ids, and seen by views; a database
    can go back, with all of it."""
    from alembic import command
    from alembic.config import Config

    database, config = Database(postgres.empty(), 5), Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def to(revision: str, down: bool = False) -> None:
        with database.upgrade() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(config, revision)

    to("0006")
    sink, log = SqlRecordSink(database), SqlRecordLog(database)
    old = [prediction_record(f"{number:x}" + "0" * 25, at=T0 + number) for number in range(16)]
    ours = [prediction_record("tree-1", at=T0), record(T0 + 5)]
    sink.store([*old, *ours], END)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE VIEW theirs AS SELECT id FROM predictions WHERE client LIKE 'ac%%'")
        connection.exec_driver_sql("CREATE VIEW over_it AS SELECT count(*) AS seen FROM theirs")
        if connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = 'reader'").first() is None:
            connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON predictions, theirs TO reader")
    upgrade_to_head(database)
    views = "SELECT (SELECT count(*) FROM prediction_log), (SELECT seen FROM over_it)"
    may = "has_table_privilege('reader', '{}', 'SELECT')"
    allowed = f"SELECT {may.format('predictions')} AND {may.format('theirs')}"

    def seen() -> tuple[Any, ...]:
        with database.read() as connection:
            assert connection.exec_driver_sql(allowed).scalar_one() is True
            return tuple(connection.exec_driver_sql(views).one())

    with database.read() as connection:
        found = where(connection)
    assert {found[one.header.id] for one in old} == {"predictions_before"}
    assert {found[one.header.id] for one in ours} == {"predictions_strays"}
    today = record(datetime.now(UTC).timestamp())
    stored = sink.store([*old, today, prediction_record(OLD)], END)
    assert (stored.inserted, stored.known) == (2, 16)
    assert sink.store([prediction_record(old[3].header.id, inputs={"x": 0})], END).quarantined == 1
    assert SqlQuarantineLog(database).page(EVERYTHING, 10, None).records
    assert seen() == (20, 20)
    to("0006", down=True)
    assert seen() == (20, 20)
    assert log.count(EVERYTHING) == 20
    assert sink.store([*old, today], END).known == 17
    upgrade_to_head(database)
    assert seen() == (20, 20)
    with database.read() as connection:
        assert len(dialects.days(connection)) == AHEAD_DAYS, "the day of `today` has begun among the strays"
    database.close()


def test_names_and_bounds_of_days() -> None:
    """A day is from its first second to the last before the next one."""
    first, second = day_of(date(2026, 12, 31)), day_of(date(2027, 1, 1))
    assert (first.name, first.end, first.over_s) == ("predictions_2026_12_31", second.first, second.over_s - DAY_S)
    assert schema.HEAD >= "0007"
