"""The exact rate limit, compared with a model of the recommendation's text (promise P4, P10)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import OverloadError
from modelyard.core.events import Event
from modelyard.limits.gcra import SharedGcra
from modelyard.testing import FakeClock


class VirtualScheduling:
    """I.371's algorithm in exact arithmetic: TAT, T and tau = (burst - 1) * T, in nanoseconds."""

    def __init__(self) -> None:
        self.tat = Fraction(0)

    def take(self, now: Fraction, interval: Fraction, burst: int) -> bool:
        if now < self.tat - (burst - 1) * interval:
            return False
        self.tat = max(now, self.tat) + interval
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def counter(clock: FakeClock) -> Iterator[SharedGcra]:
    descriptor = SharedGcra.create(10_000)
    gcra = SharedGcra.attach(descriptor, clock)
    yield gcra
    gcra.close()
    os.close(descriptor)


@given(
    interval_ms=st.integers(1, 5_000),
    burst=st.integers(1, 50),
    gaps_ms=st.lists(st.integers(0, 6_000), max_size=120),
)
def test_every_verdict_is_the_models(interval_ms: int, burst: int, gaps_ms: list[int]) -> None:
    """For any rate, burst and arrivals: allowed exactly when the model allows, and the figures are consistent."""
    ticks = TickClock()
    descriptor = SharedGcra.create(2)
    gcra, model = SharedGcra.attach(descriptor, ticks), VirtualScheduling()
    try:
        for gap in gaps_ms:
            ticks.ms += gap
            now = Fraction(int(ticks.monotonic() * 1e9))
            decision = gcra.take(1, interval_ms / 1e3, burst)
            assert decision.allowed == model.take(now, Fraction(interval_ms * 1_000_000), burst)
            assert decision.limit == burst
            assert 0 <= decision.remaining < burst + (not decision.allowed)
            assert decision.reset_s == pytest.approx(float(max(model.tat - now, 0)) / 1e9)
            assert (decision.retry_after_s > 0) == (not decision.allowed)
    finally:
        gcra.close()
        os.close(descriptor)


class TickClock(FakeClock):
    """Whole milliseconds, far from zero, as a machine's clock is."""

    ms = 86_400_000

    def monotonic(self) -> float:
        return self.ms / 1e3


def test_retry_after_is_the_moment_that_the_next_request_passes(counter: SharedGcra, clock: FakeClock) -> None:
    """Refused a little before retry_after_s is over, allowed right at its end."""
    assert [counter.take(0, 2.0, 3).allowed for _ in range(4)] == [True, True, True, False]
    wait_s = counter.take(0, 2.0, 3).retry_after_s
    assert wait_s == pytest.approx(2.0)
    clock.advance(wait_s - 0.001)
    assert not counter.take(0, 2.0, 3).allowed
    clock.advance(0.001 + 1e-6)
    assert counter.take(0, 2.0, 3).allowed
    assert not counter.take(0, 2.0, 3).allowed


def test_no_window_has_a_border(counter: SharedGcra, clock: FakeClock) -> None:
    """L11: whoever spends a limit of 100/s at the end of one second gets no second hundred at the next one's start:
    around every border only what the rate gave back meanwhile passes, one per 10 ms."""
    clock.advance(0.995 - clock.monotonic() % 1)
    assert sum(counter.take(0, 0.01, 100).allowed for _ in range(200)) == 100
    clock.advance(0.010)
    assert sum(counter.take(0, 0.01, 100).allowed for _ in range(200)) == 1


@given(st.lists(st.integers(0, 40), min_size=50, max_size=300), st.integers(1, 20))
def test_any_span_passes_at_most_burst_and_rate(gaps_ms: list[int], burst: int) -> None:
    """In every span of w seconds at most burst + w / T requests pass, whatever the arrivals."""
    ticks, passed = TickClock(), []
    descriptor = SharedGcra.create(1)
    gcra = SharedGcra.attach(descriptor, ticks)
    for gap in gaps_ms:
        ticks.ms += gap
        if gcra.take(0, 0.025, burst).allowed:
            passed.append(ticks.ms)
    gcra.close()
    os.close(descriptor)
    for first in range(0, len(passed), 5):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - passed[first]) / 25


def test_ten_thousand_clients_do_not_touch_each_other(counter: SharedGcra) -> None:
    """Each of 10,000 slots has its own burst of 2, all of it."""
    for _ in range(2):
        assert all(counter.take(slot, 60.0, 2).allowed for slot in range(10_000))
    assert not any(counter.take(slot, 60.0, 2).allowed for slot in range(10_000))


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_clock_that_starts_anew_locks_nobody_out(counter: SharedGcra, clock: FakeClock, jump_s: float) -> None:
    """P10: state from before a reboot (the monotonic clock far behind or ahead of it) costs at most one burst."""
    while counter.take(0, 1.0, 5).allowed:
        pass
    other = FakeClock(monotonic=clock.monotonic() + jump_s)
    rebooted = SharedGcra(counter._fd, other)
    rebooted.take(0, 1.0, 5)
    other.advance(5.0)
    assert [rebooted.take(0, 1.0, 5).allowed for _ in range(6)] == [True] * 5 + [False]
    rebooted.close()


def test_a_lowered_limit_holds_at_once_and_locks_nobody_out(counter: SharedGcra, clock: FakeClock) -> None:
    """After 1/h became 10/s, the debt at the old rate is forgotten within the new burst's time."""
    assert counter.take(0, 3600.0, 1).allowed
    assert not counter.take(0, 0.1, 10).allowed
    clock.advance(1.0)
    assert sum(counter.take(0, 0.1, 10).allowed for _ in range(20)) == 10


def test_state_is_fresh_at_every_start() -> None:
    """create() never sees what an earlier one left."""
    clock = FakeClock()
    for _ in range(2):
        descriptor = SharedGcra.create(4)
        gcra = SharedGcra.attach(descriptor, clock)
        assert gcra.take(3, 3600.0, 1).allowed
        assert not gcra.take(3, 3600.0, 1).allowed
        gcra.close()
        os.close(descriptor)


@pytest.mark.parametrize("slot", [4, 1 << 40, -1])
def test_a_slot_beyond_the_table_follows_on_failure(slot: int) -> None:
    """limits.on_failure: refuse raises server_busy with a time to wait, allow lets pass; one event either way."""
    events: list[Event] = []
    descriptor = SharedGcra.create(4)

    def note(event: Event, level: str = "info", **fields: object) -> None:
        events.append(event)

    refusing = SharedGcra(descriptor, FakeClock(), emit=note)
    allowing = SharedGcra(descriptor, FakeClock(), on_failure="allow", emit=note)
    for _ in range(3):
        with pytest.raises(OverloadError) as refused:
            refusing.take(slot, 1.0, 1)
        assert refused.value.retry_after_s
        assert allowing.take(slot, 1.0, 1).allowed
    assert events == [Event.LIMIT_COUNTER_FAILED] * 2
    for gcra in (refusing, allowing):
        gcra.close()
    os.close(descriptor)


def test_an_absurd_allowance_is_no_crash(clock: FakeClock) -> None:
    """A burst so large that its time does not fit the state follows on_failure once it is used up that far."""
    descriptor = SharedGcra.create(1)
    gcra = SharedGcra(descriptor, clock, emit=lambda *_args, **_fields: None)

    def use_up() -> None:
        for _ in range(5000):
            gcra.take(0, 86_400.0 * 31, 10**9)

    with pytest.raises(OverloadError):
        use_up()
    gcra.close()
    os.close(descriptor)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 9)), max_size=30), st.integers(1, 7))
def test_several_at_once_are_one_after_the_other(asked: list[tuple[int, int]], burst: int) -> None:
    """`count` requests pass, and leave behind, exactly what as many single ones at that moment would (API-5)."""
    clocks = FakeClock(), FakeClock()
    counters = [SharedGcra.attach(SharedGcra.create(1), clock) for clock in clocks]
    for wait_ms, count in asked:
        for clock in clocks:
            clock.advance(wait_ms / 1e3)
        together = counters[0].take(0, 0.7, burst, count)
        single = [counters[1].take(0, 0.7, burst) for _ in range(count)]
        assert together.passed == sum(one.passed for one in single)
        assert (together.remaining, together.reset_s, together.retry_after_s) == (
            single[-1].remaining, single[-1].reset_s, single[-1].retry_after_s
        )  # fmt: skip
