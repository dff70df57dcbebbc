"""Data leaves on time (P13, S19): by age, with what belongs to it, never what a hold keeps; and by subject."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.audit.ports import AuditFilter
from modelyard.core.errors import NotFoundError
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Cutoffs, Deleted, Hold
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record

END = SpoolPosition("f", 1)
T0 = 1_700_000_000
EVERYTHING = RecordFilter()


def record(number: int, **fields: Any) -> PredictionRecord:
    """The `number`th record, one a second."""
    made = prediction_record(f"p{number:04}")
    header = msgspec.structs.replace(made.header, at_ns=(T0 + number) * 10**9, **fields)
    return msgspec.structs.replace(made, header=header)


def fill(stores: Stores, count: int = 10, **fields: Any) -> None:
    assert stores.sink.store([record(number, **fields) for number in range(count)], END).inserted == count


def cutoffs(seconds: float, aside: float | None = None) -> Cutoffs:
    return Cutoffs(T0 + seconds, T0 + (seconds if aside is None else aside))


def ids(stores: Stores) -> list[str]:
    return sorted(one["id"] for one in stores.log.page(EVERYTHING, 1000, None).records)


def certificates(stores: Stores, action: str = "retention:delete") -> list[dict[str, Any]]:
    return [event.after for event in stores.audit.page(AuditFilter(action=action), 100, None).events]


def sweep(stores: Stores, until: Cutoffs, most: int = 100) -> list[Deleted]:
    found, since = [], 0.0
    while True:
        found.append(stores.retention.delete(until, since, most))
        if found[-1].at is None:
            return found
        since = found[-1].at


def test_what_is_older_leaves_and_nothing_else(stores: Stores) -> None:
    """Up to the cutoff, to the microsecond; what is due is counted before; a certificate has the number."""
    fill(stores)
    assert msgspec.structs.astuple(stores.retention.due(cutoffs(4))) == (4, 0, 0, 10)
    (done,) = sweep(stores, cutoffs(4))
    assert (done.predictions, done.ids) == (4, tuple(f"p{n:04}" for n in range(4)))
    assert ids(stores) == [f"p{n:04}" for n in range(4, 10)]
    assert [one["predictions"] for one in certificates(stores)] == [4]
    assert msgspec.structs.astuple(stores.retention.due(cutoffs(4))) == (0, 0, 0, 6)
    assert sweep(stores, cutoffs(4)) == [Deleted()]
    assert len(certificates(stores)) == 1, "nothing went: nothing to certify"


@pytest.mark.parametrize("most", [1, 3, 4, 7])
def test_batches_are_bounded_and_complete(stores: Stores, most: int) -> None:
    """No batch takes more than it may; together they take all, also where many records share a moment."""
    same = [msgspec.structs.replace(record(n), header=msgspec.structs.replace(record(n).header, at_ns=T0 * 10**9))
            for n in range(7)]  # fmt: skip
    stores.sink.store(same, END)
    found = sweep(stores, cutoffs(1), most)
    assert all(one.predictions <= most for one in found)
    assert sum(one.predictions for one in found) == 7
    assert ids(stores) == []


def test_outcomes_go_with_their_records(stores: Stores) -> None:
    """All revisions of them; those of younger records stay; those whose record never came go by their own age."""
    fill(stores, 4)
    given = [Outcome("p0000", 0, 1, T0, "acme", "k"), Outcome("p0000", 0, 0, T0, "acme", "k"),
             Outcome("p0003", 0, 1, T0, "acme", "k"), Outcome("never", 0, 1, T0, "acme", "k")]  # fmt: skip
    stores.outcomes.put(given, T0)
    stores.outcomes.put([Outcome("later", 0, 1, T0, "acme", "k")], T0 + 100)
    assert sum(one.outcomes for one in sweep(stores, cutoffs(2))) == 3
    history = {one: len(stores.outcomes.history(one)) for one in ("p0000", "p0003", "never", "later")}
    assert history == {"p0000": 0, "p0003": 1, "never": 0, "later": 1}


def test_what_was_set_aside_has_a_cutoff_of_its_own(stores: Stores) -> None:
    """The quarantine's days are not the log's."""
    fill(stores, 2)
    other = [msgspec.structs.replace(record(n), payload_sha256="f" * 64) for n in range(2)]
    assert stores.sink.store(other, END).quarantined == 2
    (done,) = sweep(stores, cutoffs(0, aside=1))
    assert (done.predictions, done.quarantined) == (0, 1)
    (done,) = sweep(stores, cutoffs(10, aside=1))
    assert (done.predictions, done.quarantined) == (2, 0)


HOLDS = [
    ({"client": "acme"}, {"client": "acme"}, True),
    ({"client": "acme"}, {"client": "other"}, False),
    ({"model": "m"}, {"model": "m"}, True),
    ({"endpoint": "e"}, {"endpoint": "e"}, True),
    ({"subject": "patient-1"}, {"subject": "patient-1"}, True),
    ({"subject": "patient-1"}, {"subject": "patient-2"}, False),
    ({"client": "acme", "model": "m"}, {"client": "acme", "model": "n"}, False),
    ({"since": T0 + 0.0, "until": T0 + 1.0}, {}, True),
    ({"since": T0 + 1.0}, {}, False),
    ({"until": T0 + 0.0}, {}, False),
    ({}, {}, True),
]


@pytest.mark.parametrize(("what", "fields", "kept"), HOLDS)
def test_a_hold_keeps_what_matches_all_of_it(
    stores: Stores, what: dict[str, Any], fields: dict[str, Any], kept: bool
) -> None:
    """Neither age nor a deletion by subject takes a held record; after the release both do. Both are on record."""
    fill(stores, 1, **{"subject": "patient-1", **fields})
    stores.holds.add(Hold("h1", "a case", T0, **what))
    assert [hold.id for hold in stores.holds.holds()] == ["h1"]
    assert stores.retention.due(cutoffs(9)).held == int(kept)
    assert sum(one.predictions for one in sweep(stores, cutoffs(9))) == int(not kept)
    if kept and fields.get("subject", "patient-1") == "patient-1":
        assert msgspec.structs.astuple(stores.erasures.find("patient-1")) == (0, 1, 0)
        erasure = stores.erasures.register("patient-1", T0 + 100)
        assert stores.erasures.erase(erasure, "patient-1", 10).predictions == 0
    assert len(ids(stores)) == int(kept)
    assert stores.holds.release("h1").reason == "a case"
    sweep(stores, cutoffs(9))
    assert ids(stores) == []
    assert (len(certificates(stores, "hold:create")), len(stores.holds.holds())) == (1, 0)
    with pytest.raises(NotFoundError):
        stores.holds.release("h1")


def test_held_records_do_not_hide_younger_ones(stores: Stores) -> None:
    """A thousand held records in front cost batches nothing: those behind them go all the same."""
    stores.sink.store([record(n, client="held" if n < 50 else "free") for n in range(60)], END)
    stores.holds.add(Hold("h", "a case", T0, client="held"))
    assert sum(one.predictions for one in sweep(stores, cutoffs(100), most=3)) == 10
    assert len(ids(stores)) == 50


def test_a_subject_is_erased(stores: Stores) -> None:
    """Records, outcomes and what was set aside about it; nobody else's; in bounded batches."""
    stores.sink.store([record(n, subject="patient-1" if n % 2 else "patient-2") for n in range(10)], END)
    twice = msgspec.structs.replace(record(1, subject="patient-1"), payload_sha256="f" * 64)
    assert stores.sink.store([twice], END).quarantined == 1
    stores.outcomes.put([Outcome("p0001", 0, 1, T0, "acme", "k")], T0)
    assert msgspec.structs.astuple(stores.erasures.find("patient-1")) == (5, 0, 1)
    erasure = stores.erasures.register("patient-1", T0 + 100)
    done = [stores.erasures.erase(erasure, "patient-1", 2) for _ in range(3)]
    assert [one.predictions for one in done] == [2, 2, 1]
    assert (sum(one.outcomes for one in done), sum(one.quarantined for one in done)) == (1, 1)
    assert done[-1].at is None
    assert ids(stores) == [f"p{n:04}" for n in range(0, 10, 2)]
    assert "patient-1" not in repr(stores.audit.page(AuditFilter(), 100, None)), "the certificate does not name it"


@pytest.mark.parametrize(("what", "kept"), [({"subject": "patient-1"}, 1), ({}, 1), ({"subject": "patient-2"}, 0)])
def test_a_hold_keeps_what_was_set_aside_from_an_erasure(stores: Stores, what: dict[str, Any], kept: int) -> None:
    """Deletion by subject takes nothing set aside that a hold keeps, and counts it as held; another subject's hold
    keeps nothing of this one. After the release it goes."""
    fill(stores, 1, subject="patient-1")
    twice = msgspec.structs.replace(record(0, subject="patient-1"), payload_sha256="f" * 64)
    assert stores.sink.store([twice], END).quarantined == 1
    stores.holds.add(Hold("h1", "a case", T0, **what))
    free = 1 - kept
    assert msgspec.structs.astuple(stores.erasures.find("patient-1")) == (free, 2 * kept, free)
    erasure = stores.erasures.register("patient-1", T0 + 100)
    done = stores.erasures.erase(erasure, "patient-1", 10)
    assert (done.predictions, done.quarantined) == (free, free)
    stores.holds.release("h1")
    assert stores.erasures.erase(erasure, "patient-1", 10).quarantined == kept
    assert stores.erasures.find("patient-1").quarantined == 0


def test_a_hold_keeps_what_waits_in_a_spool_from_an_erasure(stores: Stores) -> None:
    """A record that a hold matches is stored when it comes out of the spool, though its subject was erased meanwhile;
    one that it does not match is not."""
    stores.holds.add(Hold("h1", "a case", T0, client="acme", since=T0 + 2.0, until=T0 + 4.0))
    stores.erasures.register("patient-1", T0 + 100)
    batch = [record(n, subject="patient-1", client="acme" if n < 8 else "beta") for n in range(10)]
    stored = stores.sink.store(batch, END)
    assert (stored.inserted, stored.erased) == (2, 8)
    assert ids(stores) == ["p0002", "p0003"]


def test_a_subject_of_any_characters_is_erased(stores: Stores) -> None:
    """A NUL is a character of a subject, of a filter and of a hold's reason, whether the database keeps it or not."""
    subject = "patient\0 1"
    fill(stores, 2, subject=subject)
    stores.holds.add(Hold("h1", "a\0case", T0, subject=subject))
    assert msgspec.structs.astuple(stores.erasures.find(subject)) == (0, 2, 0)
    assert len(stores.log.page(RecordFilter(subject=subject), 10, None).records) == 2
    assert not stores.log.page(RecordFilter(client="\0"), 10, None).records
    stores.holds.release("h1")
    assert stores.erasures.erase(stores.erasures.register(subject, T0 + 100), subject, 10).predictions == 2
    assert ids(stores) == []


def test_what_comes_out_of_a_spool_later_is_not_stored(stores: Stores) -> None:
    """A record that waited while its subject was erased is dropped, with its outcome; a later one of the same subject
    is a new one and stays."""
    stores.outcomes.put([Outcome("p0001", 0, 1, T0, "acme", "k")], T0)
    stores.erasures.register("patient-1", T0 + 5)
    batch = [record(n, subject="patient-1") for n in range(1, 9)] + [record(20, subject="patient-2"), record(21)]
    stored = stores.sink.store(batch, END)
    assert (stored.inserted, stored.erased) == (5, 5)
    assert ids(stores) == ["p0006", "p0007", "p0008", "p0020", "p0021"]
    again = stores.sink.store(batch, END)
    assert (again.inserted, again.known, again.quarantined, again.erased) == (0, 5, 0, 5)


def test_a_sweep_is_remembered(stores: Stores) -> None:
    """None before the first."""
    assert stores.retention.swept() is None
    for at in (T0 + 0.5, T0 + 9.5):
        stores.retention.mark_swept(at)
        assert stores.retention.swept() == at
