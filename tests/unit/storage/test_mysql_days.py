"""The prediction log's daily partitions in MySQL: where records go, how a day leaves though its drop commits itself,
how a table of before is copied into them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, select, text

from mariadb.server import Server
from modelyard.audit.ports import AuditFilter
from modelyard.core.errors import ConflictError, UnavailableError
from modelyard.core.lease import Fence
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.journal.ids import PredictionIds
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Cutoffs, Deleted, Hold
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.analytics.pending import waiting_between
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects.partitions import mysql as partitions
from modelyard.storage.sql.dialects.partitions.day import AHEAD_DAYS
from modelyard.storage.sql.open import open_stores
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import MIGRATIONS, migrate, standing, upgrade_to_head
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record

DAY_S = 86_400
T0 = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
END = SpoolPosition("f", 1)
EVERYTHING = RecordFilter()
OLD = "00ff" + "0" * 22
_KEPT = ("alembic_version", "schema_revision", "snapshot")


def record(at: float, epoch: int = 1, **fields: Any) -> PredictionRecord:
    """One with an id of its time."""
    return prediction_record(PredictionIds(epoch, lambda: at).next(), at=at, **fields)


@pytest.fixture(scope="module")
def made(mariadb_server: Server) -> str:
    """A database at the newest schema, of this module alone: its days are changed."""
    return mariadb_server.broken_in()


@pytest.fixture
def url(mariadb_server: Server, made: str) -> str:
    """The same, empty and not partitioned."""
    name = made.rpartition("/")[2]
    tables = mariadb_server.query("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'", name)
    emptied = [f"DELETE FROM {table}" for table, _type in tables if table not in _KEPT]
    apart = ["ALTER TABLE predictions REMOVE PARTITIONING"] if _parts(mariadb_server, name) else []
    mariadb_server.queries(name, "SET foreign_key_checks = 0", *emptied, *apart)
    return made


def _parts(server: Server, name: str) -> list[str]:
    asked = (
        "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() AND "
        "table_name = 'predictions' AND partition_name IS NOT NULL"
    )
    return [row[0] for row in server.query(asked, name)]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Partitioned from T0 on."""
    opened = Database(url, 5)
    keep_in_days(opened, T0)
    yield opened
    opened.close()


def keep_in_days(database: Database, now_s: float) -> None:
    """What revision 0011 does, at this time."""
    with database.upgrade() as connection:
        partitions.partition(connection, now_s)


@pytest.fixture
def stores(url: str, database: Database, tmp_path: Path) -> Iterator[Stores]:
    """All of them."""
    opened = opened_at(url, tmp_path)
    yield opened
    opened.close()


def opened_at(url: str, folder: Path) -> Stores:
    """The stores of a host, whose statements wait no longer than a second."""
    return open_stores(Settings(database=DatabaseSettings(url=url, busy_timeout_s=1.0)), folder / "data")


def where(database: Database) -> dict[str, str]:
    """Which partition each record is in."""
    asked = text(
        "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() AND "
        "table_name = 'predictions'"
    )
    found: dict[str, str] = {}
    with database.read() as connection:
        for name in connection.scalars(asked).all():
            ids = connection.exec_driver_sql(f"SELECT id FROM predictions PARTITION ({name})")
            found.update((one, name) for (one,) in ids)
    return found


def names(database: Database) -> list[str]:
    """The days that there are."""
    with database.read() as connection:
        return [day.name for day in dialects.days(connection)]


def leaving(database: Database) -> list[str]:
    """The days on the list."""
    with database.read() as connection:
        return list(connection.scalars(select(partitions.LEAVING.c.name)))


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
    page = stores.audit.page(AuditFilter(action="retention:delete"), 1000, None)
    assert not stores.audit.verify().problems
    return [event.after for event in reversed(page.events)]


def test_records_go_to_their_days(stores: Stores, database: Database) -> None:
    """By the time in their ids, to the second; what is older than the first day goes to it, and what belongs to no day
    is found all the same. An id is stored once, wherever it lies."""
    cases = [
        (record(T0), "predictions_2026_03_01"),
        (record(T0 + DAY_S - 1), "predictions_2026_03_01"),
        (record(T0 + DAY_S, 2), "predictions_2026_03_02"),
        (record(T0 + 400 * DAY_S), "predictions_strays"),
        (record(T0 - DAY_S), "predictions_2026_03_01"),
        (prediction_record("tree-1"), "predictions_strays"),
        (prediction_record(OLD), "predictions_before"),
    ]
    records = [one for one, _name in cases]
    assert stores.sink.store(records, END).inserted == len(cases)
    assert where(database) == {one.header.id: name for one, name in cases}
    for one in records:
        assert stores.log.get(one.header.id)["id"] == one.header.id
    again = stores.sink.store(records, END)
    assert (again.inserted, again.known) == (0, len(cases))
    changed = [prediction_record(one.header.id, at=T0, inputs={"x": 9}) for one in records]
    assert stores.sink.store(changed, END).quarantined == len(cases)
    assert stores.log.count(EVERYTHING) == len(cases)


def test_a_lookup_reads_one_partition(database: Database) -> None:
    """An id tells the planner where to look, and so does a day's range of ids."""
    one = record(T0 + 5)
    SqlRecordSink(database).store([one, record(T0 + 6, 2)], END)
    with database.read() as connection:
        first = dialects.days(connection)[0]
        for condition, given in (
            ("id = :id", {"id": one.header.id}),
            ("id >= :first AND id < :end", {"first": first.first, "end": first.end}),
        ):
            plan = connection.execute(text(f"EXPLAIN PARTITIONS SELECT * FROM predictions WHERE {condition}"), given)
            assert [row["partitions"] for row in plan.mappings()] == ["predictions_2026_03_01"]


def test_days_are_made_ahead(stores: Stores, database: Database) -> None:
    """Whenever a sweep ended: today and a week; what is there is left alone. Few strays go to the first day that is
    made."""
    made = names(database)
    assert made == [f"predictions_2026_03_{day:02}" for day in range(1, AHEAD_DAYS + 2)]
    stores.retention.mark_swept(T0)
    stores.retention.mark_swept(T0 - 5 * DAY_S)
    assert names(database) == made
    begun = record(T0 + (AHEAD_DAYS + 2) * DAY_S)
    stores.sink.store([begun], END)
    stores.retention.mark_swept(T0 + 12 * DAY_S)
    assert names(database)[len(made) :] == [f"predictions_2026_03_{day}" for day in range(13, 21)]
    assert where(database)[begun.header.id] == "predictions_2026_03_13"
    assert stores.retention.swept() == T0 + 12 * DAY_S


def test_many_strays_are_not_copied(stores: Stores, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a day would keep appends waiting for as long as that takes: none is made until they have left."""
    monkeypatch.setattr(partitions, "MOST_COPIED", 2)
    made, later = names(database), T0 + 30 * DAY_S
    stores.sink.store([record(later + second * 60) for second in range(3)], END)
    stores.retention.mark_swept(later)
    assert names(database) == made
    sweep(stores, later + DAY_S)
    stores.retention.mark_swept(later)
    assert names(database)[-1] == "predictions_2026_04_07"


def test_a_day_leaves_as_a_whole(stores: Stores, database: Database) -> None:
    """P13: its partition is gone with its outcomes, and a certificate says so; the days beside it are as they were, and
    what lies elsewhere leaves in batches."""
    day = [record(T0 + second * 60, 1 + second) for second in range(9)] + [record(T0 - DAY_S)]
    other = [record(T0 + DAY_S + 5), prediction_record(OLD, at=T0 + 5)]
    stores.sink.store([*day, *other], END)
    given = [Outcome(one.header.id, 0, 1, T0, "acme", "k1") for one in (day[3], *other)]
    stores.outcomes.put(given, T0)
    done = sweep(stores, T0 + DAY_S)
    assert [(batch.predictions, batch.outcomes) for batch in done] == [(10, 1), (1, 1)]
    assert [one["id"] for one in stores.log.page(EVERYTHING, 100, None).records] == [other[0].header.id]
    assert [one["item"] for one in stores.outcomes.history(other[0].header.id)] == [0]
    assert (names(database)[0], leaving(database)) == ("predictions_2026_03_02", [])
    whole, rest = certificates(stores)
    assert (whole["partition"], whole["predictions"], whole["outcomes"]) == ("predictions_2026_03_01", 10, 1)
    assert (whole["first"], whole["last"]) == ("2026-02-28T00:00:00.000000Z", "2026-03-01T00:08:00.000000Z")
    assert (rest["predictions"], rest["outcomes"]) == (1, 1)
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
    assert names(database)[:2] == ["predictions_2026_03_01", "predictions_2026_03_04"], "empty days beside it went"
    stores.holds.release("h")
    assert sweep(stores, T0 + 3 * DAY_S)[0].predictions == 1
    assert names(database)[0] == "predictions_2026_03_04"
    assert sum(one["predictions"] for one in certificates(stores)) == 4


def test_what_went_to_an_archive_leaves_its_day_empty(stores: Stores, database: Database) -> None:
    """Where records are archived first, only days without any are dropped, and need no certificate."""
    stores.sink.store([record(T0 + 5)], END)
    stores.retention.delete(Cutoffs(T0 + 3 * DAY_S, 0.0), 0.0, 100, records=False)
    assert names(database)[:2] == ["predictions_2026_03_01", "predictions_2026_03_04"]
    assert certificates(stores) == []
    assert stores.log.count(EVERYTHING) == 1


def test_a_record_that_is_not_due_keeps_its_day(stores: Stores, database: Database) -> None:
    """P10: a worker's clock was wrong, its id says another day than its record: the record's own time decides."""
    late = prediction_record(PredictionIds(7, lambda: T0 + 50).next(), at=T0 + 30 * DAY_S)
    stores.sink.store([late, record(T0 + 5)], END)
    assert sum(batch.predictions for batch in sweep(stores, T0 + 2 * DAY_S)) == 1
    assert stores.log.get(late.header.id)["id"] == late.header.id
    assert "predictions_2026_03_01" in names(database)


def test_a_day_is_not_taken_by_who_lost_the_lease(stores: Stores, database: Database) -> None:
    """The fence is looked at before anything goes."""
    stores.sink.store([record(T0 + 5)], END)
    with pytest.raises(ConflictError):
        stores.retention.delete(Cutoffs(T0 + 2 * DAY_S, 0.0), 0.0, 100, Fence("retention", 7))
    assert stores.log.count(EVERYTHING) == 1
    assert leaving(database) == []


def list_first_day(stores: Stores, database: Database) -> None:
    """What a process leaves that dies between a day's certificate and its drop."""
    engine: Engine = stores.retention._database.engine  # type: ignore[attr-defined]

    def die(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "DROP PARTITION" in statement:
            raise _DiedError

    event.listen(engine, "before_cursor_execute", die)
    with pytest.raises(_DiedError):
        stores.retention.delete(Cutoffs(T0 + DAY_S, 0.0), 0.0, 100)
    event.remove(engine, "before_cursor_execute", die)
    assert leaving(database) == ["predictions_2026_03_01"]


class _DiedError(Exception):
    pass


CHANGES: dict[str, Callable[[Stores], object]] = {
    "late": lambda stores: stores.sink.store([record(T0 + 7, 5)], END),
    "outcome": lambda stores: stores.outcomes.put([Outcome(record(T0 + 5).header.id, 0, 1, T0, "acme", "k1")], T0),
    "erasure": lambda stores: stores.erasures.erase(stores.erasures.register("s", T0 + DAY_S), "s", 10),
    "hold": lambda stores: stores.holds.add(Hold("h", "case 1", T0)),
    "sweep": lambda stores: stores.retention.delete(Cutoffs(T0 + 5, 0.0), 0.0, 100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_who_would_change_a_day_that_leaves_drops_it_first(stores: Stores, database: Database, change: str) -> None:
    """A record that comes late, an outcome, an erasure, a hold: each finds the day gone, and its certificate counts
    what went and nothing else. What comes late is kept, in the day behind."""
    stores.sink.store([record(T0 + 5, subject="s"), record(T0 + 6, 2)], END)
    list_first_day(stores, database)
    CHANGES[change](stores)
    assert (leaving(database), names(database)[0]) == ([], "predictions_2026_03_02")
    assert [one["predictions"] for one in certificates(stores) if "predictions" in one] == [2]
    late = {record(T0 + 7, 5).header.id: "predictions_2026_03_02"}
    assert where(database) == (late if change == "late" else {})
    with database.read() as connection:
        assert connection.scalars(select(schema.outcomes.c.prediction_at)).all() == [None] * (change == "outcome")


def test_what_lies_elsewhere_is_stored_beside_a_day_that_leaves(stores: Stores, database: Database) -> None:
    """The drain does not wait for the drop: only a record of that very day makes it happen."""
    stores.sink.store([record(T0 + 5)], END)
    list_first_day(stores, database)
    assert stores.sink.store([record(T0 + DAY_S)], END).inserted == 1
    assert leaving(database) == ["predictions_2026_03_01"]


def test_a_drop_waits_for_readers_no_longer_than_bounded(stores: Stores, database: Database) -> None:
    """Then it is store_unavailable, certified and done by whoever comes next; what is not of that day is stored
    meanwhile."""
    stores.sink.store([record(T0 + 5)], END)
    with database.read() as connection:
        connection.exec_driver_sql("SELECT COUNT(*) FROM predictions")
        with pytest.raises(UnavailableError, match="locked"):
            stores.retention.delete(Cutoffs(T0 + DAY_S, 0.0), 0.0, 100)
        assert stores.sink.store([record(T0 + DAY_S)], END).inserted == 1
        with pytest.raises(UnavailableError, match="locked"):
            stores.sink.store([record(T0 + 7)], END)
    assert sweep(stores, T0 + DAY_S) == [Deleted()]
    assert (leaving(database), [one["predictions"] for one in certificates(stores)]) == ([], [1])
    assert stores.sink.store([record(T0 + 7)], END).inserted == 1


def test_an_append_that_waited_sees_the_list(
    stores: Stores, database: Database, url: str, mariadb_server: Server
) -> None:
    """It began before the certificate was durable, and takes its lock behind it."""
    stores.sink.store([record(T0 + 5)], END)
    other, waits = Database(url, 5), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with database.write(holds_appends=True) as connection:

            @event.listens_for(other.engine, "before_cursor_execute")
            def begins(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
                if statement == partitions.SHARED:
                    waits.set()

            storing = pool.submit(SqlRecordSink(other).store, [record(T0 + 7, 5)], END)
            assert waits.wait(5)
            until_it_waits(mariadb_server)
            partitions.drop_day(connection, dialects.days(connection)[0])
        assert storing.result(10).inserted == 1
    other.close()
    assert where(database) == {record(T0 + 7, 5).header.id: "predictions_2026_03_02"}


def until_it_waits(server: Server) -> None:
    """Returns once a transaction waits for a row's lock. InnoDB tells it anew only to who has not asked for a while."""
    for _ in range(100):
        if server.query("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"):
            return
        threading.Event().wait(0.15)
    raise AssertionError("nobody waits")


def _dying_at(engine: Engine, nth: int) -> None:
    """Has this process end at the n-th statement or commit (from 0)."""
    reached = iter(range(nth))

    def step(*_whatever: Any) -> None:
        if next(reached, None) is None:
            os._exit(9)

    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)


def _sweep_in_child(url: str, folder: Path, until: float, nth: int) -> bool:
    """Whether a process that is to die at step `nth` of its sweep was done before."""
    child = os.fork()
    if child == 0:
        try:
            stores = opened_at(url, folder)
            _dying_at(stores.retention._database.engine, nth)  # type: ignore[attr-defined]
            sweep(stores, until)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


def test_a_process_that_dies_between_any_two_steps(
    stores: Stores, url: str, database: Database, tmp_path: Path
) -> None:
    """P13, S19: at each statement and commit of a day's deletion. Nothing is gone without its certificate, each
    certificate counts what went, once; what comes late between the kill and the next sweep is kept until that one
    certifies it too."""
    stored, left = 0, Counter[str]()
    for nth in range(200):
        begins = T0 + nth * DAY_S
        stores.retention.mark_swept(begins)
        day = [record(begins + second * 60, 1 + second) for second in range(5)]
        stored += stores.sink.store(day, END).inserted
        stores.outcomes.put([Outcome(day[0].header.id, 0, 1, begins, "acme", "k1")], begins)
        done = _sweep_in_child(url, tmp_path, begins + DAY_S, nth)
        named = [one for one in certificates(stores) if one.get("partition") == names_of(begins)]
        listed, count = leaving(database), stores.log.count(EVERYTHING)
        assert count == 5 if not named else count in (0, 5) if listed else count == 0, f"step {nth}"
        left["done" if not listed and named else "dropped" if not count else "certified" if named else "nothing"] += 1
        late = record(begins + 600, 77)
        stored += stores.sink.store([late], END).inserted
        assert stores.log.get(late.header.id)["id"] == late.header.id
        sweep(stores, begins + DAY_S)
        assert (leaving(database), stores.log.count(EVERYTHING)) == ([], 0)
        assert sum(one["predictions"] for one in certificates(stores)) == stored
        assert stores.outcomes.history(day[0].header.id) == []
        if done:
            break
    print(f"{stored} records, {nth} kills: {dict(left)}")
    assert done
    assert {"nothing", "certified", "dropped", "done"} <= set(left)
    assert sum(one["outcomes"] for one in certificates(stores)) == nth + 1


def names_of(begins: float) -> str:
    """The partition of a day."""
    return f"predictions_{datetime.fromtimestamp(begins, UTC):%Y_%m_%d}"


def stored_at_last(store: Callable[[], int]) -> int:
    """What it says once the database is not locked, as the drain does."""
    for _ in range(100):
        with suppress(UnavailableError):
            return store()
        threading.Event().wait(0.01)
    raise AssertionError("it never is")


def test_days_leave_while_hosts_store(stores: Stores, url: str, database: Database) -> None:
    """Three hosts store new and late records while another sweeps day after day: all that was stored is in the log, or
    counted by a certificate, once."""
    stored = [record(T0 + day * DAY_S + second, 1 + second) for day in range(6) for second in range(20)]
    stores.sink.store(stored, END)
    gate = threading.Barrier(4)

    def store(number: int) -> int:
        host, count = Database(url, 20), 0
        sink = SqlRecordSink(host)
        gate.wait(20)
        for turn in range(60):
            ids = PredictionIds(1000 * (number + 1) + turn, lambda turn=turn: T0 + (turn % 8) * DAY_S + 40)
            batch = [prediction_record(ids.next(), at=T0 + (turn % 8) * DAY_S + 40) for _ in range(5)]
            count += stored_at_last(lambda batch=batch: sink.store(batch, SpoolPosition(f"f{number}", 1)).inserted)
        host.close()
        return count

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(store, number) for number in range(3)]
        gate.wait(20)
        for day in range(1, 7):
            sweep(stores, T0 + day * DAY_S)
        total = len(stored) + sum(one.result(60) for one in running)
    gone = sum(one["predictions"] for one in certificates(stores))
    assert total == len(stored) + 3 * 60 * 5
    assert stores.log.count(EVERYTHING) + gone == total
    assert (names(database)[0], leaving(database)) == ("predictions_2026_03_07", [])


def test_a_table_of_before_is_copied_into_days(mariadb_server: Server) -> None:
    """D9: `post` makes days from the oldest record on, `pre` leaves all as it was; records and views stay, nothing is
    stored twice, and a database can go back."""
    from alembic import command
    from alembic.config import Config

    database, config = Database(mariadb_server.empty(), 30), Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def to(revision: str, down: bool = False) -> None:
        with database.upgrade() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(config, revision)

    upgrade_to_head(database)
    to("0009", down=True)
    sink, log = SqlRecordSink(database), SqlRecordLog(database)
    now = datetime.now(UTC).timestamp()
    upgrade_to_head(database)
    with database.read() as connection:
        assert [(step.revision, step.phase) for step in standing(connection).pending] == [("0011", "post")]
    assert names(database) == []
    ours = [record(now), record(now - 3 * DAY_S), record(now - 1000 * DAY_S)]
    records = [prediction_record(OLD, at=T0), prediction_record("tree-1", at=T0), *ours]
    assert sink.store(records, END).inserted == 5
    with database.write() as connection:
        connection.exec_driver_sql("CREATE VIEW theirs AS SELECT id FROM predictions WHERE client LIKE 'ac%%'")
    assert [step.revision for step in migrate(database, "post")] == ["0011"]
    assert len(names(database)) == 3 + 1 + AHEAD_DAYS
    found = where(database)
    days = [names_of(now), names_of(now - 3 * DAY_S), names_of(now - 3 * DAY_S)]
    expected = ["predictions_before", "predictions_strays", *days]
    assert [found[one.header.id] for one in records] == expected
    assert sink.store(records, END).known == 5
    with database.read() as connection:
        seen = connection.exec_driver_sql("SELECT (SELECT COUNT(*) FROM theirs), (SELECT COUNT(*) FROM prediction_log)")
        assert tuple(seen.one()) == (5, 5)
    to("0010", down=True)
    assert (names(database), log.count(EVERYTHING)) == ([], 5)
    assert sink.store(records, END).known == 5
    database.close()
