"""The exact limit, wherever it is counted: the shared memory of a host, the fakes, a server or table of several hosts.

One suite for all. The server's script runs with the test's clock in place of its own; nothing else of it is changed.
The table is an emulator's, and its time the test's.
"""

from __future__ import annotations

import asyncio
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from valkey import exceptions as vendor

from counterserver.server import CounterServer
from modelyard.limits.gcra import SharedGcra
from modelyard.limits.ports import RateAsk, RateCounter, RateDecision, RemoteCounter
from modelyard.storage.dynamodb.limits.counter import DynamoCounter
from modelyard.storage.dynamodb.limits.service_time import ServiceTime
from modelyard.storage.valkey import counter as module
from modelyard.storage.valkey.counter import SCRIPT, ValkeyCounter
from modelyard.storage.valkey.location import Location
from modelyard.testing import FakeClock, MemoryRateCounter, MemoryRemoteCounter

TICK_S = 1 / 64
"""Times are multiples of it: whole in microseconds, in nanoseconds and as a double."""
CLOCKED = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}").replace(
    "math.ceil(after / 1e6)", "600000"
)
"""The script by the clock of its last arguments; what it writes stays for longer than any test."""


class JumpingClock(FakeClock):
    """One that may be set forward and back."""

    leap_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.leap_s

    def now(self) -> float:
        return super().now() + self.leap_s


class ClockedValkey(ValkeyCounter):
    """A ValkeyCounter whose server has the test's clock."""

    def __init__(self, server: CounterServer, clock: JumpingClock) -> None:
        super().__init__(Location.parse(server.url), script=CLOCKED)
        self._clock = clock

    async def _run(self, commands: Sequence[module.Command]) -> list[Any]:
        micros = int(self._clock.now() * 1e6 + 0.5)
        return await super()._run([(*command, micros // 10**6, micros % 10**6) for command in commands])


class Told(ServiceTime):
    """The time of a service that has the test's clock."""

    def is_known(self) -> bool:
        return True

    def heard(self, date_s: float, asked_s: float, answered_s: float) -> None:
        """The emulator's own dates are of today."""


class Counted:
    """Any counter, asked in one way; its clients are numbers, and nobody else's."""

    def __init__(
        self,
        counter: RateCounter | RemoteCounter,
        clock: JumpingClock,
        loop: asyncio.AbstractEventLoop,
        many: int = 1000,
    ) -> None:
        self.clock = clock
        self.many = many
        self.remote = hasattr(counter, "close") and not isinstance(counter, SharedGcra)
        self._counter: Any = counter
        self._loop = loop
        self._names = uuid.uuid4().hex

    def take(self, client: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        """So many requests of one client."""
        if not self.remote:
            return self._counter.take(client, interval_s, burst, count)  # type: ignore[no-any-return]
        return self.take_all([(client, interval_s, burst, count)])[0]

    def take_all(self, asks: Sequence[tuple[int, float, int, int]]) -> Sequence[RateDecision]:
        """Several in one exchange; one after the other where there are none."""
        if not self.remote:
            return [self._counter.take(*ask) for ask in asks]
        named = [RateAsk(f"{self._names}-{client}", client, *rest) for client, *rest in asks]
        found: Sequence[RateDecision] = self._loop.run_until_complete(self._counter.take(named))
        return found

    def take_quota(self, client: int, interval_s: float = 3600.0, **asked: Any) -> tuple[int, int, int]:
        """Of a client that may send five at once: how many pass, are set aside, and are used of the day."""
        ask = RateAsk(f"{self._names}-{client}", client, interval_s, 5, **asked)
        decision = self._loop.run_until_complete(self._counter.take([ask]))[0]
        assert decision.quota.day == self.today
        return decision.passed, decision.quota.reserved, decision.quota.used

    @property
    def today(self) -> int:
        """The UTC day of the counter's clock."""
        return int(self.clock.now() // 86_400)

    def anew(self) -> None:
        """Clients that nobody has asked for."""
        self._names = uuid.uuid4().hex


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One loop for all exchanges."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["shared memory", "fake", "remote fake", "valkey", "dynamodb"])
def counted(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Counted]:
    """A counter of each kind; its clock is far from zero and turns when it is told."""
    clock = JumpingClock(now=1_800_000_000.0, monotonic=86_400.0)
    if request.param == "shared memory":
        descriptor = SharedGcra.create(100_000)
        gcra = SharedGcra.attach(descriptor, clock)
        yield Counted(gcra, clock, loop)
        gcra.close()
        os.close(descriptor)
    elif request.param == "fake":
        yield Counted(MemoryRateCounter(clock), clock, loop)
    elif request.param == "remote fake":
        yield Counted(MemoryRemoteCounter(clock), clock, loop)
    elif request.param == "dynamodb":
        table = request.getfixturevalue("dynamo")
        told = DynamoCounter(table.counters(), table.settings("dynamodb://counters"), clock, time=Told(clock))
        yield Counted(told, clock, loop, many=100)
        loop.run_until_complete(told.close())
    else:
        counter = ClockedValkey(request.getfixturevalue("counter_server"), clock)
        yield Counted(counter, clock, loop)
        loop.run_until_complete(counter.close())


@pytest.fixture
def client(counted: Counted) -> int:
    """A client of the test's own."""
    numbers = counted.__dict__.setdefault("numbers", iter(range(1, 100_000)))
    return int(next(numbers))


def test_a_burst_passes_at_once_and_then_one_an_interval(counted: Counted, client: int) -> None:
    """Five at once, the sixth when it says so, and not a moment earlier."""
    found = [counted.take(client, 2.0, 5) for _ in range(6)]
    assert [one.passed for one in found] == [1, 1, 1, 1, 1, 0]
    assert [one.remaining for one in found] == [4, 3, 2, 1, 0, 0]
    assert [round(one.reset_s, 6) for one in found] == [2, 4, 6, 8, 10, 10]
    assert found[-1].retry_after_s == pytest.approx(2.0)
    assert all(one.limit == 5 for one in found)
    counted.clock.advance(2.0 - TICK_S)
    assert not counted.take(client, 2.0, 5).allowed
    counted.clock.advance(TICK_S)
    assert counted.take(client, 2.0, 5).allowed
    assert not counted.take(client, 2.0, 5).allowed


def test_many_at_once_pass_in_part(counted: Counted, client: int) -> None:
    """Of 8 asked for together 5 pass, and it says when the sixth will."""
    found = counted.take(client, 1.0, 5, 8)
    assert (found.passed, found.remaining) == (5, 0)
    assert (found.reset_s, found.retry_after_s) == (pytest.approx(5.0), pytest.approx(1.0))
    whole = counted.take(client + 50_000, 1.0, 5, 5)
    assert (whole.passed, whole.retry_after_s) == (5, 0.0)


def test_no_window_has_a_border(counted: Counted, client: int) -> None:
    """L11: a limit of 64/s that is spent gives back one per tick, and no second 64 at any second's start."""
    counted.clock.advance(1.0 - TICK_S - counted.clock.monotonic() % 1)
    assert counted.take(client, TICK_S, 64, 200).passed == 64
    counted.clock.advance(TICK_S)
    assert counted.take(client, TICK_S, 64, 200).passed == 1


def test_clients_do_not_touch_each_other(counted: Counted) -> None:
    """A thousand clients in one exchange (a hundred in a table, one request each): each has its own burst of 2, all
    of it, in the order asked."""
    counted.anew()
    asks = [(90_000 + n, 60.0, 2, 1 + n % 3) for n in range(counted.many)]
    assert [one.passed for one in counted.take_all(asks)] == [min(2, 1 + n % 3) for n in range(counted.many)]
    again = [one.passed for one in counted.take_all(asks)]
    assert again == [max(0, min(1 + n % 3, 1 - n % 3)) for n in range(counted.many)]


def test_a_client_that_is_named_twice_is_asked_twice(counted: Counted, client: int) -> None:
    """Two asks of one client in one exchange are one after the other."""
    found = counted.take_all([(client, 60.0, 5, 3), (client, 60.0, 5, 3)])
    assert [one.passed for one in found] == [3, 2]


def test_a_lowered_limit_holds_at_once_and_locks_nobody_out(counted: Counted, client: int) -> None:
    """After 1/h became 10/s, the debt at the old rate is forgotten within the new burst's time."""
    assert counted.take(client, 3600.0, 1).allowed
    assert not counted.take(client, 0.1, 10).allowed
    counted.clock.advance(1.0)
    assert counted.take(client, 0.1, 10, 20).passed == 10


@pytest.mark.parametrize("jump_s", [-40_000.0, 1e8])
def test_a_clock_that_jumps_locks_nobody_out(counted: Counted, client: int, jump_s: float) -> None:
    """P10: whatever the counter's clock does, a client that asks has its whole burst back after its time."""
    assert counted.take(client, 1.0, 5, 9).passed == 5
    counted.clock.leap_s = jump_s
    counted.take(client, 1.0, 5)
    counted.clock.advance(5.0)
    assert counted.take(client, 1.0, 5, 9).passed == 5
    counted.clock.leap_s = 0.0
    counted.take(client, 1.0, 5)
    counted.clock.advance(5.0)
    assert counted.take(client, 1.0, 5, 9).passed == 5


def test_the_largest_and_the_fastest_rates(counted: Counted, client: int) -> None:
    """A burst of a month at one a day, and of a billion at a billion a second: exact, and no crash."""
    assert counted.take(client, 86_400.0, 31, 40).passed == 31
    assert counted.take(client + 50_000, 1e-9, 10**9, 1000).passed == 1000


@pytest.mark.parametrize("counted", ["shared memory", "valkey", "dynamodb"], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    interval_us=st.one_of(st.integers(1, 5_000_000), st.sampled_from([333_333, 15_625, 1, 86_400_000_000])),
    burst=st.integers(1, 50),
    asked=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 9)), max_size=25),
)
def test_every_verdict_is_the_models(
    counted: Counted, interval_us: int, burst: int, asked: list[tuple[int, int]]
) -> None:
    """I.371 in exact arithmetic: for any rate, burst and arrivals as many pass as the model lets through."""
    counted.anew()
    number = int(next(counted.__dict__.setdefault("numbers", iter(range(1, 100_000)))))
    interval, arrival = Fraction(interval_us, 10**6), Fraction(0)
    for ticks, count in asked:
        counted.clock.advance(ticks * TICK_S)
        now = Fraction(counted.clock.monotonic())
        passed = 0
        while passed < count and now >= arrival - (burst - 1) * interval:
            arrival = max(now, arrival) + interval
            passed += 1
        found = counted.take(number, interval_us / 1e6, burst, count)
        assert found.passed == passed
        left = max(arrival - now, Fraction(0))
        assert found.remaining == math.floor((burst * interval - left) / interval)
        assert found.reset_s == pytest.approx(float(left), abs=1e-6)


SHARED = pytest.mark.parametrize("counted", ["remote fake", "valkey", "dynamodb"], indirect=True)
"""What hosts share alone: a host's own quotas are not counted with its rates (tests/unit/limits/test_quota.py)."""


@SHARED
def test_a_quota_is_set_aside_for_those_who_pass(counted: Counted, client: int) -> None:
    """Of a quota of 7 what the rate let through, until nothing is left; a new day begins anew; who has no quota hears
    of none."""
    day = counted.today
    assert counted.take_quota(client, count=3, quota_per_day=7, quota_day=day) == (3, 3, 3)
    assert counted.take_quota(client, count=9, quota_per_day=7, quota_day=day) == (2, 2, 5)
    counted.clock.advance(5 * 3600.0)
    if counted.today == day:
        assert counted.take_quota(client, count=5, quota_per_day=7, quota_day=day) == (5, 2, 7)
    counted.clock.advance(86_400.0)
    assert counted.take_quota(client, count=4, quota_per_day=7, quota_day=counted.today) == (4, 4, 4)
    assert counted.take(client, 3600.0, 5).quota is None


@SHARED
def test_what_was_not_spent_goes_back(counted: Counted, client: int) -> None:
    """A correction counts, passes nobody, and makes no count less than nothing."""
    asked = {"quota_per_day": 7, "quota_day": counted.today}
    assert counted.take_quota(client, count=5, **asked) == (5, 5, 5)
    assert counted.take_quota(client, count=0, quota_correction=-2, **asked) == (0, 0, 3)
    assert counted.take_quota(client, count=0, quota_correction=3, **asked) == (0, 0, 6)
    assert counted.take_quota(client, count=0, quota_correction=-99, **asked) == (0, 0, 0)


@SHARED
def test_a_count_that_was_lost_is_what_a_host_knows(counted: Counted, client: int) -> None:
    """A counter without a count of the day takes the host's; one that has its own does not."""
    asked = {"count": 1, "quota_per_day": 7, "quota_day": counted.today}
    assert counted.take_quota(client, quota_kept=6, quota_correction=2, **asked) == (1, 1, 7)
    assert counted.take_quota(client, quota_kept=1, **asked) == (1, 0, 7)
    assert counted.take_quota(client + 50_000, quota_kept=99, **asked) == (1, 0, 99)


@pytest.mark.parametrize("counted", ["valkey", "dynamodb"], indirect=True)
@pytest.mark.parametrize("days", [-3, -1, 1, 3])
def test_a_clock_that_is_set_back_finds_what_it_left(counted: Counted, client: int, days: int) -> None:
    """P10: a day, or three, on and back again: nobody gets a day twice, nobody is locked out."""
    asked: dict[str, Any] = {"count": 1, "quota_per_day": 2, "interval_s": 1e-6}

    def at(leap_s: float) -> tuple[int, ...]:
        counted.clock.leap_s = leap_s
        counted.take(client, 1e-6, 5)  # of its rate a clock that was set back leaves nothing, for five microseconds
        counted.clock.advance(TICK_S)
        return counted.take_quota(client, quota_day=counted.today, **asked)[1:]

    assert [at(leap_s) for leap_s in (0.0, days * 86_400.0, 0.0, 0.0)] == [(1, 1), (1, 1), (1, 2), (0, 2)]


class Losing(ClockedValkey):
    """One that loses an answer, when told to: the server has counted by then."""

    lost = False

    async def _exchange(self, commands: Sequence[module.Command]) -> list[Any]:
        replies = await super()._exchange(commands)
        if self.lost:
            self.lost = False
            raise vendor.ConnectionError
        return replies


def test_what_was_given_back_is_not_given_back_twice(
    counter_server: CounterServer, loop: asyncio.AbstractEventLoop
) -> None:
    """An exchange whose answer was lost is sent again. Of a quota of 7, of which 5 were set aside and 2 given back in
    it, 4 are left and not 6; what was made without the counter may be told twice, which is less for the client."""
    clock = JumpingClock(now=1_800_000_000.0)
    counter, day = Losing(counter_server, clock), int(clock.now() // 86_400)
    counted = Counted(counter, clock, loop)
    asked = {"quota_per_day": 7, "quota_day": day}
    assert counted.take_quota(1, count=5, **asked) == (5, 5, 5)
    counter.lost = True
    assert counted.take_quota(1, count=0, quota_correction=-2, **asked) == (0, 0, 3)
    assert not counter.lost
    counter.lost = True
    assert counted.take_quota(1, count=0, quota_correction=1, **asked) == (0, 0, 5)
    loop.run_until_complete(counter.close())


def test_days_without_a_prediction_leave_nothing_behind(
    counter_server: CounterServer, loop: asyncio.AbstractEventLoop
) -> None:
    """P4: a client that predicts on some days of each week, for a year: its counts are those of four days, not of all
    that it passed over."""
    clock = JumpingClock(now=1_800_000_000.0)
    counter = ClockedValkey(counter_server, clock)
    name, kept = uuid.uuid4().hex, 0
    for number in range(365):
        if number % 7 in (0, 1, 2, 5):
            ask = RateAsk(name, 1, 1.0, 5, quota_per_day=9, quota_day=int(clock.now() // 86_400))
            loop.run_until_complete(counter.take([ask]))
            kept = max(kept, counter_server.ask("HLEN", f"modelyard:quota:{{{name}}}"))
        clock.advance(86_400.0)
    assert 1 < kept <= 4
    loop.run_until_complete(counter.close())
