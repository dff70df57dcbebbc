"""What leaves the tables is certified once: whoever deletes at the same time, whatever answer is lost, however far the
index is behind. The service is an emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynamo.emulator import Dynamo
from modelyard.audit.ports import AuditFilter
from modelyard.core.settings import RetentionSettings, Settings
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.retention.ports import Cutoffs, Hold
from modelyard.storage.dynamodb.records.feeds import Feeds
from modelyard.storage.dynamodb.records.leaving import certified
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, prediction_record

T0 = 1_700_000_000.0
DAY_S = 86_400.0
END = SpoolPosition("f", 1)
ALL = RecordFilter()
OLD = Cutoffs(T0 + 1000, T0 + 1000)
Open = Callable[[], Stores]


@pytest.fixture
def clock() -> FakeClock:
    """At T0."""
    return FakeClock(T0)


@pytest.fixture
def opened(dynamo: Dynamo, tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Opens stores over the same new tables."""
    url, made = dynamo.tables(), []

    def open_them() -> Stores:
        settings = Settings(database=dynamo.settings(url), retention=RetentionSettings(days=0))
        made.append(open_stores(settings, tmp_path / "data", clock))
        return made[-1]

    yield open_them
    for stores in made:
        stores.close()
    dynamo.fail()
    dynamo.drop(url)


def filled(stores: Stores, count: int = 6) -> None:
    """Records of one subject, each with an outcome, one set aside; and a younger one of the same day that stays."""
    records = [prediction_record(f"p{n:03}", at=T0 + n, subject="s") for n in range(count)]
    assert stores.sink.store(records, END).inserted == count
    stores.sink.store([msgspec.structs.replace(records[0], payload_sha256="f" * 64)], END)
    stores.outcomes.put([Outcome(f"p{n:03}", 0, 1, T0, "acme", "k") for n in range(count)], T0)
    stores.sink.store([prediction_record("younger", at=T0 + 5000)], END)


def certificates(stores: Stores) -> list[dict[str, Any]]:
    """What was certified, newest first."""
    return [event.after for event in stores.audit.page(AuditFilter(action="retention:delete"), 99, None).events]


def total(stores: Stores, name: str) -> int:
    """How many there are in all certificates."""
    return sum(one[name] for one in certificates(stores))


def stored(stores: Stores) -> int:
    """How many records the guard against clock jumps believes in."""
    return stores.retention.due(Cutoffs(0.0, 0.0)).stored


def before_the_next(stores: Stores, operation: str, act: Callable[[], object]) -> None:
    """Does something just before the stores' next request of this kind leaves."""
    database: Any = stores.ping.__self__  # type: ignore[attr-defined]  # what is behind `ping`
    events, name = database.requests.client.get().meta.events, f"before-call.dynamodb.{operation}"

    def once(**_event: Any) -> None:
        events.unregister(name, once)
        act()

    events.register(name, once)


def by_age(stores: Stores) -> int:
    """A batch of a sweep."""
    return stores.retention.delete(OLD, 0.0, 99).predictions


def by_subject(stores: Stores) -> int:
    """A batch of an erasure; the subject is registered without a request of the kind that is watched for."""
    return stores.erasures.erase("e", "s", 99).predictions


def registered(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """One erasure, called `e`."""
    monkeypatch.setattr("modelyard.storage.dynamodb.records.leaving.subject.secrets.token_hex", lambda _size: "e")
    stores.erasures.register("s", T0 + DAY_S)
    monkeypatch.undo()


@pytest.mark.parametrize(("first", "second"), [(by_age, by_subject), (by_subject, by_age), (by_age, by_age)])
def test_what_two_would_delete_is_certified_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch, first: Callable[[Stores], int], second: Callable[[Stores], int]
) -> None:
    """P13: a sweep and a deletion by subject, or two sweeps, gather the same records; one of them deletes all of it
    while the other is about to write its certificate. Each record, outcome and quarantined record is in one
    certificate, and what is stored is counted down once."""
    one, other = opened(), opened()
    filled(one)
    registered(one, monkeypatch)
    went: list[int] = []
    before_the_next(one, "TransactWriteItems", lambda: went.append(second(other)))
    went.append(first(one))
    assert sum(went) == 6
    assert [total(one, name) for name in ("predictions", "outcomes", "quarantined")] == [6, 6, 1]
    assert (one.log.count(ALL), stored(one)) == (1, 1)


def test_a_certificate_whose_answer_was_lost_is_one(opened: Open, dynamo: Dynamo) -> None:
    """P13: the request is sent again and does nothing a second time."""
    stores = opened()
    filled(stores)
    dynamo.fail(
        {"target": "TransactWriteItems", "times": 1, "status": 500, "code": "InternalServerError", "applied": 1}
    )
    assert by_age(stores) == 6
    assert (total(stores, "predictions"), len(certificates(stores)), stored(stores)) == (6, 1, 1)


def test_an_index_that_is_behind_certifies_nothing_twice(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """P13: an index may still show what the last batch took: records and what was set aside are looked up in the table
    before they are certified. What is behind them goes all the same."""
    stores = opened()
    filled(stores)
    seen: dict[str, list[Any]] = {}
    read = Feeds.read

    def behind(feeds: Feeds, stretch: Any, **asked: Any) -> Any:
        if stretch.feed not in seen:
            seen[stretch.feed] = list(read(feeds, stretch, **asked))
        return seen[stretch.feed]

    monkeypatch.setattr(Feeds, "read", behind)
    assert [stores.retention.delete(OLD, 0.0, most).predictions for most in (2, 2, 4, 99)] == [2, 0, 2, 2]
    assert [total(stores, name) for name in ("predictions", "outcomes", "quarantined")] == [6, 6, 1]


def test_a_list_that_two_finish_counts_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard against clock jumps goes by what is stored: a list that one left and two others found counts once."""
    one, other = opened(), opened()
    filled(one)
    with monkeypatch.context() as patch:
        patch.setattr(certified.Leaving, "_work_off", lambda *_args: None)
        assert one.retention.delete(OLD, 0.0, 2).predictions == 2
    before_the_next(one, "BatchWriteItem", lambda: by_age(other))
    by_age(one)
    assert (total(one, "predictions"), one.log.count(ALL), stored(one)) == (6, 1, 1)


def test_a_count_whose_answer_was_lost_counts_once(opened: Open, dynamo: Dynamo) -> None:
    """The guard against clock jumps would be too lax by a batch for each answer that was lost."""
    stores = opened()
    dynamo.fail(*(
        {"target": target, "times": 1, "status": 500, "code": "InternalServerError", "applied": 1}
        for target in ("UpdateItem", "TransactWriteItems")
    ))  # fmt: skip
    stores.sink.store([prediction_record(f"p{n}", at=T0) for n in range(5)], END)
    assert stored(stores) == 5


def test_days_that_expired_by_themselves_are_forgotten(opened: Open, clock: FakeClock) -> None:
    """P4: what the service removed is not counted down; its day is forgotten all the same, once nothing was stored for
    it for an hour. Before that the index may not show yet what is there."""
    stores = opened()
    stores.sink.store([prediction_record("p", at=T0 - 9 * DAY_S)], END)
    feeds: Feeds = stores.outcomes._feeds  # type: ignore[attr-defined]
    feeds.requests.delete(feeds.table, ("p#p", "record"))
    by_age(stores)
    assert len(feeds.days("record")) == 1
    clock.advance(3601)
    by_age(stores)
    assert feeds.days("record") == []


def test_an_outcome_that_came_first_is_joined_by_whoever_reads_the_spool_again(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S19: a drain dies between a record and its outcome, which was given before. The next one joins them: the log
    finds the record by its outcome, and a hold on the record keeps both from a sweep."""
    stores = opened()
    stores.outcomes.put([Outcome("p", 0, 1, T0, "acme", "k")], T0)

    def die(*_args: Any) -> None:
        raise RuntimeError("died")

    with monkeypatch.context() as patch:
        patch.setattr(stores.outcomes, "join", die)
        with pytest.raises(RuntimeError):
            stores.sink.store([prediction_record("p", at=T0)], END)
    stores.sink.store([prediction_record("p", at=T0)], END)
    assert stores.log.count(RecordFilter(outcome="has")) == 1
    stores.holds.add(Hold("h", "a case", T0))
    assert stores.retention.delete(OLD, 0.0, 99).outcomes == 0
    assert len(stores.outcomes.history("p")) == 1


def test_an_outcome_that_waits_beside_its_record_goes_with_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """S19: a process dies between storing an outcome and seeing that its record came meanwhile. A sweep joins the two:
    a hold keeps both, and later they go together, counted once."""
    stores = opened()
    stores.sink.store([prediction_record("p", at=T0)], END)
    stores.holds.add(Hold("h", "a case", T0))
    with monkeypatch.context() as patch:
        patch.setattr(stores.outcomes, "_records", lambda _ids: [])
        stores.outcomes.put([Outcome("p", 0, 1, T0, "acme", "k")], T0)
    assert stores.retention.delete(OLD, 0.0, 99).outcomes == 0
    assert stores.log.count(RecordFilter(outcome="has")) == 1
    stores.holds.release("h")
    assert stores.retention.delete(OLD, 0.0, 99).outcomes == 1
    assert total(stores, "outcomes") == 1
