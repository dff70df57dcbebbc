"""When it is safe to delete (P10, P13, F11): wrong clocks and wrong amounts put a sweep off, loudly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.core.errors import InvalidRequestError
from modelyard.core.settings import RetentionSettings
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.sweep import DAY_S, Sweeper
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, memory_stores, prediction_record

YEAR_S = 365 * DAY_S


class Yard:
    """A year of records, four a day, the last one now; a sweep every hour until now."""

    def __init__(self, days: int = 365, **settings: Any) -> None:
        self.clock = FakeClock(now=1_800_000_000.0)
        self.stores: Stores = memory_stores()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.settings = RetentionSettings(**settings)
        self.fill(days)
        self.stores.retention.mark_swept(self.clock.now() - 3600)
        self.sweeper = self.started()

    def fill(self, days: int) -> None:
        made = []
        for number in range(4 * days):
            one = prediction_record(f"p{number:05}")
            at_ns = int((self.clock.now() - number * DAY_S / 4) * 1e9)
            made.append(msgspec.structs.replace(one, header=msgspec.structs.replace(one.header, at_ns=at_ns)))
        self.stores.sink.store(made, SpoolPosition("f", 1))

    def started(self) -> Sweeper:
        """A process starts."""

        def say(event: str, _level: str = "info", **fields: Any) -> None:
            self.said.append((event, fields))

        return Sweeper(self.stores.retention, self.stores.leases, self.settings, self.clock, say)

    @property
    def left(self) -> int:
        return self.stores.log.count(RecordFilter())


def test_ninety_days_and_a_day_of_grace_stay() -> None:
    """The default; the next day takes one day more; a log line says how many went."""
    yard = Yard(days=100)
    assert yard.sweeper.sweep().predictions == 4 * 100 - 4 * 91 - 1
    assert yard.left == 4 * 91 + 1
    yard.clock.advance(DAY_S)
    assert yard.sweeper.sweep().predictions == 4
    assert [event for event, _ in yard.said] == ["retention.swept", "retention.swept"]


def test_zero_days_keep_everything() -> None:
    """For ever; the quarantine likewise."""
    yard = Yard(days=300)
    yard.settings = RetentionSettings(days=0)
    swept = yard.started().sweep(force=True)
    assert (swept.predictions, yard.left) == (0, 1200)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, 30 * YEAR_S, -YEAR_S, 3 * DAY_S])
def test_a_jump_of_the_clock_deletes_nothing_early(jump_s: float) -> None:
    """F11: one day, thirty years, backwards: put off while the process lives; when the clock is right again, it goes
    on, and nothing that was not ninety days old ever left."""
    yard = Yard(days=92)
    right = yard.clock.now()
    yard.clock.jump_to(right + jump_s)
    swept = yard.sweeper.sweep()
    assert (swept.predictions, yard.left) == (0, 4 * 92)
    if jump_s > 0:
        assert swept.put_off == "clock_jumped"
        assert yard.said == [("retention.put_off", {"reason": "clock_jumped", "due": swept_due(yard), "stored": 368})]
    yard.clock.jump_to(right)
    assert yard.sweeper.sweep().predictions == 4 * 92 - 4 * 91 - 1


def swept_due(yard: Yard) -> int:
    return yard.sweeper.plan().due.predictions


@pytest.mark.parametrize("jump_s", [DAY_S - 1, 4 * DAY_S, 30 * YEAR_S])
def test_nor_does_one_before_a_start(jump_s: float) -> None:
    """A process that starts under a wrong clock has no other to compare it with: the last sweep tells. Less than a
    day is what the grace is for."""
    yard = Yard(days=91)
    yard.clock.jump_to(yard.clock.now() + jump_s)
    swept = yard.started().sweep()
    assert swept.put_off == (None if jump_s < DAY_S else "gap_too_long")
    assert yard.left >= 4 * 90


def test_a_clock_that_creeps_backwards_does_no_harm() -> None:
    """A second back every second for two hours: nothing leaves early, nothing is stuck afterwards."""
    yard = Yard(days=92)
    for _ in range(7200):
        yard.clock.advance(1)
        yard.clock.jump_to(yard.clock.now() - 2)
    assert yard.sweeper.sweep().predictions == 0
    assert yard.left == 368
    yard.clock.jump_to(yard.clock.now() + 2 * 7200)
    assert yard.sweeper.sweep().predictions == 4


def test_too_much_at_once_waits_for_somebody() -> None:
    """More than half of all records: put off with the numbers, done by force; few records are no history."""
    yard = Yard(days=300)
    swept = yard.sweeper.sweep()
    assert (swept.put_off, yard.left) == ("too_many_at_once", 1200)
    assert yard.sweeper.sweep(force=True).predictions == 1200 - 4 * 91 - 1
    few = Yard(days=24)
    few.settings = RetentionSettings(days=1)
    assert few.started().sweep().put_off is None


def test_a_sweep_can_be_stopped_and_goes_on() -> None:
    """Between two batches; what is left goes with the next sweep. `most_batches` bounds a request's part."""
    yard = Yard(days=180, batch=10, max_share=1)
    answers = iter([True, True, False, False])
    part = yard.sweeper.sweep(going_on=lambda: next(answers))
    assert (part.predictions, part.more) == (20, True)
    part = yard.sweeper.sweep(most_batches=3)
    assert (part.predictions, part.more) == (30, True)
    rest = yard.sweeper.sweep()
    assert (rest.more, yard.left) == (False, 4 * 91 + 1)


def test_the_desk_erases_what_is_kept_for_retries_too() -> None:
    """The ids of what went are handed on; what a hold keeps is counted and stays."""
    yard, forgotten = Yard(days=1), list[str]()

    def forget(ids: Any) -> int:
        forgotten.extend(ids)
        return len(ids)

    one = prediction_record("mine")
    at_ns = int(yard.clock.now() * 1e9)
    mine = msgspec.structs.replace(one, header=msgspec.structs.replace(one.header, at_ns=at_ns, subject="patient-1"))
    yard.stores.sink.store([mine], SpoolPosition("f", 2))
    desk = RetentionDesk(yard.sweeper, yard.stores.holds, yard.stores.erasures, forget, yard.clock)
    held = desk.hold("a case", subject="patient-1")
    assert msgspec.structs.astuple(desk.erase("patient-1")) == (0, 0, 0, 0, 1, 0, False)
    desk.release(held.id)
    done = desk.erase("patient-1")
    assert (done.predictions, done.kept_answers, forgotten) == (1, 1, ["mine"])


@pytest.mark.parametrize("reason", ["", "  ", "x" * 513])
def test_a_hold_needs_a_reason(reason: str) -> None:
    """One to 512 characters."""
    yard = Yard(days=1)
    desk = RetentionDesk(yard.sweeper, yard.stores.holds, yard.stores.erasures, len, yard.clock)
    with pytest.raises(InvalidRequestError) as caught:
        desk.hold(reason)
    assert caught.value.detail["field"] == "reason"
