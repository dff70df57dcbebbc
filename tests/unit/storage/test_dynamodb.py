"""What the stores on DynamoDB promise beyond their ports: no Scan, changes and records of any size, expiry, and what a
process leaves that dies in the middle. The service is an emulator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynamo.emulator import Dynamo
from modelyard.audit.ports import AuditFilter
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.errors import UnavailableError
from modelyard.core.settings import RetentionSettings, Settings
from modelyard.journal.items import item_page
from modelyard.journal.ports import Outcome, QuarantineLog, RecordFilter, SpoolPosition
from modelyard.retention.ports import Cutoffs, Hold
from modelyard.storage.dynamodb.metadata import transactions
from modelyard.storage.dynamodb.records import log as log_module
from modelyard.storage.dynamodb.records.leaving import certified
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, key, prediction_record, version

T0 = 1_700_000_000.0
DAY_S = 86_400.0
END = SpoolPosition("f", 1)
ALL = RecordFilter()
Open = Callable[..., Stores]


@pytest.fixture
def url(dynamo: Dynamo) -> Iterator[str]:
    """New tables."""
    made = dynamo.tables()
    yield made
    dynamo.fail()
    dynamo.drop(made)


@pytest.fixture
def clock() -> FakeClock:
    """At T0."""
    return FakeClock(T0)


@pytest.fixture
def opened(dynamo: Dynamo, url: str, tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Opens stores over the tables."""
    made: list[Stores] = []

    def open_them(days: int = 90, folder: str = "data", by: Clock = clock, **database: Any) -> Stores:
        settings = Settings(database=dynamo.settings(url, **database), retention=RetentionSettings(days=days))
        made.append(open_stores(settings, tmp_path / folder, by))
        return made[-1]

    yield open_them
    for stores in made:
        stores.close()


def filled(stores: Stores, count: int = 20, **fields: Any) -> None:
    records = [
        prediction_record(f"p{n:03}", at=T0 + n, subject="s" if n % 4 == 0 else "", **fields) for n in range(count)
    ]
    assert stores.sink.store(records, END).inserted == count


def worked(stores: Stores) -> None:
    """A bit of everything that routes and processes do."""
    client = stores.keys.ensure_client("acme", None, None, None)
    for one in ("k1", "k2"):
        stores.keys.add(key(client.id, one))
    stores.keys.revoke_all(["k1"], T0)
    stores.keys.snapshot()
    for name in ("1", "2"):
        stores.registry.add_version(version("tree", name, name.encode()))
    stores.endpoints.set_traffic("tree", (("1", 50), ("2", 50)))
    stores.registry.versions("tree"), stores.endpoints.endpoints()
    stores.usage.record_uses({"k2": T0})
    stores.usage.last_uses(), stores.usage.quotas()
    filled(stores)
    stores.outcomes.put([Outcome("p001", 0, 1, T0, "acme", "k2"), Outcome("later", 0, 1, T0, "acme", "k2")], T0)
    stores.sink.store([prediction_record("later", at=T0 + 50)], END)
    for wanted in (ALL, RecordFilter(client="acme"), RecordFilter(outcome="has"), RecordFilter(outcome="none"),
                   RecordFilter(subject="s"), RecordFilter(since=T0 + 1, until=T0 + 9, status=2)):  # fmt: skip
        stores.log.page(wanted, 5, None), stores.log.count(wanted), list(stores.log.export(wanted, 7))
        item_page(stores.log, wanted, 5, None)
    stores.log.get("p001"), stores.outcomes.history("p001"), stores.outcomes.targets(["p001"])
    quarantine: QuarantineLog = stores.quarantine
    quarantine.page(ALL, 5, None)
    stores.holds.add(Hold("h", "a case", T0, subject="s"))
    stores.retention.due(Cutoffs(T0 + 3, T0 + 3)), stores.retention.delete(Cutoffs(T0 + 3, T0 + 3), 0.0, 5)
    stores.holds.release("h")
    stores.erasures.erase(stores.erasures.register("s", T0 + 99), "s", 3)
    stores.audit.page(AuditFilter(action="key:create"), 5, None), stores.audit.verify()
    stores.ping()


def test_nothing_is_ever_scanned(opened: Open, dynamo: Dynamo) -> None:
    """Whatever is asked, each request names its partition: the service never sees a Scan."""
    stores = opened()
    dynamo.asked()
    worked(stores)
    asked = dynamo.asked()
    targets = {one["target"] for one in asked}
    assert targets == {
        "GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem",
        "TransactWriteItems",
    }  # fmt: skip
    for one in asked:
        if one["target"] == "Query":
            assert " = :partition AND " in one["request"]["KeyConditionExpression"]


def test_what_decides_reads_what_was_written_last(opened: Open, dynamo: Dynamo) -> None:
    """All reads are strongly consistent, but those of the two indexes."""
    stores = opened()
    dynamo.asked()
    worked(stores)
    for one in dynamo.asked():
        request = one["request"]
        if one["target"] == "GetItem" or (one["target"] == "Query" and "IndexName" not in request):
            assert request["ConsistentRead"] is True
        elif one["target"] == "BatchGetItem":
            assert all(table["ConsistentRead"] for table in request["RequestItems"].values())


def test_a_page_of_the_log_costs_few_requests(opened: Open, dynamo: Dynamo) -> None:
    """The days, the day's shards, the outcomes: not more with more records."""
    stores = opened()
    filled(stores, 60)
    dynamo.asked()
    stores.log.page(ALL, 50, None)
    assert len(dynamo.asked()) <= 8


def many_keys(stores: Stores, count: int) -> list[str]:
    client = stores.keys.ensure_client("acme", None, None, None)
    ids = [f"k{number:03}" for number in range(count)]
    for one in ids:
        stores.keys.add(key(client.id, one))
    return ids


def test_a_change_that_is_too_large_for_a_transaction_is_whole(
    opened: Open, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: more keys than a transaction takes end at once. A process that dies after the transaction leaves the rest to
    the next reader, who sees all of it; one that finishes late overwrites nothing that came after."""
    monkeypatch.setattr(transactions, "MOST_ITEMS", 10)
    stores, other = opened(), opened(folder="other")
    ids = many_keys(stores, 8)
    before = stores.keys.version()
    died = RuntimeError("died")

    def die(*_args: Any) -> None:
        raise died

    with monkeypatch.context() as patch:
        patch.setattr(transactions.Metadata, "_finish", die)
        with pytest.raises(RuntimeError):
            stores.keys.revoke_all(ids, T0)
    stale = transactions.Metadata._read_head(stores.keys._metadata)  # type: ignore[attr-defined]
    assert stale.pending
    snapshot = other.keys.snapshot()
    assert {one.revoked_at for one in snapshot.keys} == {T0}
    assert snapshot.version == before + 1
    changed = other.keys.update("k000", models=("oak",))
    stores.keys._metadata._finish(stale)  # type: ignore[attr-defined]
    assert other.keys.snapshot().keys[0] == changed
    assert other.audit.verify().sound


def test_a_request_whose_answer_was_lost_is_not_done_twice(opened: Open, dynamo: Dynamo) -> None:
    """The transaction was made, its answer is a 500: the next attempt is the same request, and no conflict with
    itself."""
    stores = opened()
    dynamo.fail(
        {"target": "TransactWriteItems", "times": 1, "status": 500, "code": "InternalServerError", "applied": True}
    )
    client = stores.keys.ensure_client("acme", None, None, None)
    assert stores.keys.snapshot().clients == (client,)
    assert stores.audit.verify().checked == 1


def test_records_of_any_size(opened: Open) -> None:
    """Longer than an item: in parts, read as one, deleted as one."""
    stores = opened()
    noise = random.Random(7).randbytes(600_000).hex()
    records = [prediction_record("long", inputs={"x": noise}, subject="s"), prediction_record("short")]
    assert stores.sink.store(records, END).inserted == 2
    taken = msgspec.structs.replace(records[0], payload_sha256="f" * 64)
    assert stores.sink.store([taken], END).quarantined == 1
    assert stores.log.get("long")["inputs"] == {"x": noise}
    assert [len(str(one["inputs"])) > 10**6 for one in stores.log.page(ALL, 5, None).records] == [False, True]
    assert stores.quarantine.raw("long")[0]["record"]["inputs"] == {"x": noise}
    assert stores.retention.delete(Cutoffs(T0 + 9, T0 + 9), 0.0, 9).predictions == 2


def test_nothing_of_what_left_stays(opened: Open, dynamo: Dynamo, url: str, clock: FakeClock) -> None:
    """Records, parts, outcomes, pointers, lists: after the deletion the table holds the spool's position alone; an hour
    later not even the days."""
    stores = opened()
    noise = random.Random(7).randbytes(300_000).hex()
    filled(stores, 5)
    flagged = msgspec.structs.replace(prediction_record("f", subject="s"), raw=b"raw", flag="undecoded")
    stores.sink.store([prediction_record("long", inputs=noise, subject="s"), flagged], END)
    stores.sink.store([msgspec.structs.replace(flagged, payload_sha256="f" * 64)], END)
    stores.outcomes.put([Outcome("p001", 0, value, T0, "acme", "k") for value in (1, 0)], T0)
    stores.outcomes.put([Outcome("never", 0, 1, T0, "acme", "k")], T0)
    done = stores.retention.delete(Cutoffs(T0 + 9 * DAY_S, T0 + 9 * DAY_S), 0.0, 99)
    assert (done.predictions, done.outcomes, done.quarantined) == (7, 3, 1)
    left = dynamo.client.scan(TableName=f"{url.removeprefix('dynamodb://')}-predictions")["Items"]
    days = {"days#record", "days#aside", "days#outcome"}
    assert {item["pk"]["S"] for item in left} == {"spool#f", *days}
    for _ in range(2):  # the outcomes' after the records'
        clock.advance(3601)
        stores.retention.delete(Cutoffs(T0 + 9 * DAY_S, T0 + 9 * DAY_S), 0.0, 99)
    assert names(dynamo, url, *days) == 0


def test_what_has_expired_is_not_shown(opened: Open, clock: FakeClock, dynamo: Dynamo, url: str) -> None:
    """P13: the service takes days to remove what expired; readers do not see it meanwhile. With retention off nothing
    expires."""
    stores = opened(days=10)
    filled(stores, 4)
    stores.outcomes.put([Outcome("p001", 0, 1, T0, "acme", "k")], T0)
    clock.jump_to(T0 + 16 * DAY_S)
    assert stores.log.count(ALL) == 4
    clock.jump_to(T0 + 18 * DAY_S)
    assert (stores.log.count(ALL), stores.log.page(ALL, 9, None).records) == (0, ())
    assert (stores.outcomes.history("p001"), stores.outcomes.targets(["p001"])) == ([], {})
    assert stores.log.page(RecordFilter(subject="s"), 9, None).records == ()
    assert dynamo.expire(url, clock.now()) >= 6
    forever = opened(days=0)
    filled(forever, 4)
    clock.jump_to(T0 + 9999 * DAY_S)
    assert (forever.log.count(ALL), dynamo.expire(url, clock.now())) == (4, 0)


def test_a_hold_keeps_from_expiring(opened: Open, clock: FakeClock, dynamo: Dynamo, url: str) -> None:
    """P13: what a hold matches does not expire, with its outcomes: what was there, and what comes later. Once it is
    released, the next sweep takes it."""
    stores = opened(days=10)
    filled(stores, 4)
    stores.outcomes.put([Outcome("p000", 0, 1, T0, "acme", "k")], T0)
    stores.holds.add(Hold("h", "a case", T0, subject="s"))
    stores.sink.store([prediction_record("later", at=T0, subject="s"), prediction_record("free", at=T0)], END)
    clock.jump_to(T0 + 99 * DAY_S)
    dynamo.expire(url, clock.now())
    assert sorted(one["id"] for one in stores.log.page(ALL, 9, None).records) == ["later", "p000"]
    assert len(stores.outcomes.history("p000")) == 1
    stores.holds.release("h")
    assert stores.retention.delete(Cutoffs(clock.now(), clock.now()), 0.0, 9).predictions == 2


def test_what_was_certified_goes_whoever_dies(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """P13: a process that dies between the certificate and the deletion leaves a list, and the next one works it
    off; nothing is certified twice."""
    stores = opened()
    filled(stores, 6)

    def die(*_args: Any) -> None:
        raise RuntimeError("died")

    with monkeypatch.context() as patch:
        patch.setattr(certified.Leaving, "_work_off", die)
        with pytest.raises(RuntimeError):
            stores.retention.delete(Cutoffs(T0 + 3, T0 + 3), 0.0, 9)
    assert stores.log.count(ALL) == 6
    assert stores.retention.delete(Cutoffs(T0 + 3, T0 + 3), 0.0, 9).predictions == 0
    assert stores.log.count(ALL) == 3
    certificates = stores.audit.page(AuditFilter(action="retention:delete"), 9, None).events
    assert [one.after["predictions"] for one in certificates] == [3]
    assert stores.retention.due(Cutoffs(0.0, 0.0)).stored == 3


def test_a_page_that_finds_little_ends_with_a_cursor(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: a filter that matches little reads a bounded part of the log; by the cursors everything is found once."""
    stores = opened()
    records = [prediction_record(f"p{n:03}", at=T0 + n * DAY_S / 10, client="rare" if n % 9 == 0 else "acme")
               for n in range(40)]  # fmt: skip
    stores.sink.store(records, END)
    monkeypatch.setattr(log_module, "MOST_READS", 5)
    found, pages, cursor = [], 0, None
    while True:
        page = stores.log.page(RecordFilter(client="rare"), 50, cursor)
        found += [one["id"] for one in page.records]
        pages, cursor = pages + 1, page.cursor
        if cursor is None:
            break
    assert found == ["p036", "p027", "p018", "p009", "p000"]
    assert 1 < pages < 20


def test_throttled_and_half_done_writes_lose_nothing(opened: Open, dynamo: Dynamo) -> None:
    """F1: the service takes half of some batches, throttles others and fails once: every record is there once."""
    stores = opened()
    dynamo.fail(
        {"target": "BatchWriteItem", "times": 2, "unprocessed": True},
        {"target": "BatchWriteItem", "times": 2, "status": 400, "code": "ThrottlingException"},
        {"target": "PutItem", "times": 1, "status": 500, "code": "InternalServerError", "applied": True},
    )
    filled(stores, 60)
    assert stores.log.count(ALL) == 60
    assert stores.sink.position("f") == 1


def test_a_service_that_fails_for_long_is_unavailable(opened: Open, dynamo: Dynamo) -> None:
    """P11: bounded by `database.busy_timeout_s`, in our words; the position stays where it was."""
    stores = opened(days=0, by=SystemClock(), busy_timeout_s=0.2)
    dynamo.fail({"target": "BatchWriteItem", "times": 10**6, "status": 500, "code": "InternalServerError"})
    with pytest.raises(UnavailableError) as caught:
        filled(stores)
    assert caught.value.detail["reason"] == "busy"
    assert "hunter2" not in str(caught.value)
    assert stores.sink.position("f") == 0
    dynamo.fail()
    again = opened(days=0)
    filled(again)


def test_an_event_that_was_moved_is_noticed(opened: Open, dynamo: Dynamo, url: str) -> None:
    """Who takes an event out of the index hides it from pages, or cuts the end of the log off: the check says so."""
    stores = opened()
    for one in ("a", "b", "c"):
        stores.keys.ensure_client(one, None, None, None)
    table = f"{url.removeprefix('dynamodb://')}-metadata"
    place = {"pk": {"S": "audit"}, "sk": {"S": f"{2:020d}"}}
    dynamo.client.update_item(TableName=table, Key=place, UpdateExpression="REMOVE kind")
    assert [(one.code, one.sequence) for one in stores.audit.verify().problems] == [("event_changed", 2)]
    dynamo.client.delete_item(TableName=table, Key={**place, "sk": {"S": f"{3:020d}"}})
    assert "tail_missing" in {one.code for one in stores.audit.verify().problems}


def lost(target: str) -> dict[str, Any]:
    """The next request of this kind is done, and its answer does not arrive."""
    return {"times": 1, "target": target, "status": 500, "code": "InternalServerError", "applied": True}


def test_a_lease_whose_answer_was_lost_is_held(opened: Open, dynamo: Dynamo) -> None:
    """It was taken, so whoever asked for it has it; nobody else has it meanwhile."""
    leases = opened().leases
    for _ in range(2):
        dynamo.fail(lost("PutItem"))
        fence = leases.acquire("sweep", "a", 60.0)
        assert fence is not None
        assert leases.acquire("sweep", "b", 60.0) is None
        leases.renew(fence, 60.0)
        leases.release(fence)


def test_a_day_that_is_forgotten_while_it_is_written_to_ends_no_sweep(
    opened: Open, dynamo: Dynamo, clock: FakeClock
) -> None:
    """P13: records that came for it meanwhile, or a lost answer, are no lost lease; the sweep is done."""
    stores = opened(days=0)
    filled(stores)
    cutoffs = Cutoffs(T0 + 3 * DAY_S, T0 + 3 * DAY_S)
    fence = stores.leases.acquire("retention", "a", 60.0)
    dynamo.fail(lost("DeleteItem"))
    assert stores.retention.delete(cutoffs, 0.0, 100, fence).at is None
    assert stores.log.count(ALL) == 0


def test_what_a_dying_drain_began_goes_with_the_erasure(
    opened: Open, dynamo: Dynamo, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S19: a drain dies between what belongs to a large record and the record; its subject is erased; the spool is read
    again. Nothing of it is stored, and nothing stays: not its name, not a piece of its body. Of a record that a hold
    keeps, the same reading takes nothing."""
    stores = opened()
    noise = random.Random(1).randbytes(700_000)
    large = prediction_record("p1", at=T0, subject="patient-1", inputs=noise.hex())
    held = prediction_record("p2", at=T0, subject="patient-1", model="garden")
    stores.sink.store([held], None)
    stores.outcomes.put([Outcome("p2", 0, 1, T0, "acme", "k")], T0)
    writes = stores.sink._requests.write_many  # type: ignore[attr-defined]

    def dying(*asked: Any, **more: Any) -> None:
        writes(*asked, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores.sink._requests, "write_many", dying)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            stores.sink.store([large], END)
    assert names(dynamo, url, "p#p1", "s#patient-1") > 2
    stores.holds.add(Hold("h", "a case", T0, model="garden"))
    erasure = stores.erasures.register("patient-1", T0 + 1)
    stores.erasures.erase(erasure, "patient-1", 10)
    again = stores.sink.store([large, large, held], END)
    assert (again.inserted, again.erased) == (0, 2)
    assert names(dynamo, url, "p#p1") == 0
    assert stores.log.get("p2")["outcomes"]
    stores.holds.release("h")
    stores.erasures.erase(erasure, "patient-1", 10)
    assert names(dynamo, url, "p#p2", "s#patient-1") == 0


def names(dynamo: Dynamo, url: str, *partitions: str) -> int:
    """How many items there are in these partitions."""
    items = dynamo.client.scan(TableName=f"{url.removeprefix('dynamodb://')}-predictions")["Items"]
    return sum(item["pk"]["S"] in partitions for item in items)


def test_an_erasure_reads_no_bodies(opened: Open, dynamo: Dynamo) -> None:
    """P4: a subject may have more records than fit into memory: what goes is known by keys, and read as it is
    needed."""
    stores = opened()
    filled(stores, 60)
    dynamo.asked()
    assert stores.erasures.erase(stores.erasures.register("s", T0 + 99), "s", 3).predictions == 3
    asked = [one["request"]["RequestItems"] for one in dynamo.asked() if one["target"] == "BatchGetItem"]
    reads = [request for tables in asked for request in tables.values()]
    records = [request for request in reads if request["Keys"][0]["sk"]["S"] == "record"]
    assert records
    assert all("#body" not in request.get("ProjectionExpression", "#body") for request in records)


def test_a_list_of_what_goes_fits_into_its_transaction(
    opened: Open, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P13: records with many outcomes leave in several batches, each with its certificate, by age and by subject; what
    one prediction has goes together."""
    monkeypatch.setattr(certified, "MOST_KEYS", 20)
    stores = opened(days=0)
    filled(stores, 12)
    stores.outcomes.put([Outcome("p000", item, 1, T0, "acme", "k") for item in range(30)], T0)
    stores.outcomes.put([Outcome(f"p{n:03}", 0, 1, T0, "acme", "k") for n in range(1, 12)], T0)
    erasure, batches = stores.erasures.register("s", T0 + 99), 0
    while stores.erasures.erase(erasure, "s", 100).at is not None:
        batches += 1
    assert batches == 1, "the first alone, then the other two"
    assert stores.log.count(ALL) == 9
    since: float | None = 0.0
    while since is not None:
        since = stores.retention.delete(Cutoffs(T0 + DAY_S, T0 + DAY_S), since, 100).at
        batches += 1
    assert batches == 3
    assert stores.log.count(ALL) == 0
    said = [event.after for event in stores.audit.page(AuditFilter(action="retention:delete"), 9, None).events]
    assert sum(one["predictions"] for one in said) == 12
    assert sum(one["outcomes"] for one in said) == 41


def test_days_of_outcomes_are_forgotten_with_their_records(opened: Open, clock: FakeClock) -> None:
    """P4: the list of days does not grow for ever; a day of which a hold keeps a record stays."""
    stores = opened(days=0)
    filled(stores, 4)
    stores.sink.store([prediction_record("late", at=T0 - DAY_S, model="garden")], END)
    stores.outcomes.put([Outcome(one, 0, 1, T0, "acme", "k") for one in ("p001", "late")], T0)
    stores.holds.add(Hold("h", "a case", T0, model="garden"))
    feeds = stores.outcomes._feeds  # type: ignore[attr-defined]
    assert len(feeds.days("outcome")) == 2
    cutoffs = Cutoffs(T0 + 9 * DAY_S, T0 + 9 * DAY_S)
    stores.retention.delete(cutoffs, 0.0, 100)
    clock.advance(3601)
    stores.retention.delete(cutoffs, 0.0, 100)
    assert [day.date for day in feeds.days("outcome")] == ["2023-11-13"]
    assert stores.log.count(RecordFilter(outcome="has")) == 1
    stores.holds.release("h")
    stores.retention.delete(cutoffs, 0.0, 100)
    clock.advance(3601)
    stores.retention.delete(cutoffs, 0.0, 100)
    assert (feeds.days("outcome"), feeds.days("record")) == ([], [])


def test_a_time_that_ends_before_it_begins_has_no_records(opened: Open, dynamo: Dynamo) -> None:
    """Within one day too: the service refuses a range that ends before it begins (moto does not)."""
    stores = opened()
    filled(stores, 4)
    dynamo.asked()
    wanted = RecordFilter(since=T0 + 3, until=T0 + 1)
    assert stores.log.count(wanted) == 0
    assert stores.log.page(wanted, 5, None).records == ()
    assert stores.quarantine.page(wanted, 5, None).records == ()
    for one in dynamo.asked():
        if one["target"] == "Query":
            values = one["request"]["ExpressionAttributeValues"]
            assert values[":low"]["S"] <= values[":high"]["S"]
