"""The spine where limits are counted elsewhere: turns wait for their counts, the loop and other turns do not."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from predict_yard import Yard, turns

from modelyard.core.clock import SystemClock
from modelyard.core.errors import LimitError, ModelyardError, UnavailableError
from modelyard.core.settings import LimitsSettings
from modelyard.journal.durability.commit import commit_at_once
from modelyard.journal.frame import MARK, read_frames
from modelyard.limits.remote import RemoteRates
from modelyard.predict import WaitingPredictor
from modelyard.routing.table import RoutingTable
from modelyard.testing import MemoryRateCounter, MemoryRemoteCounter

AWAY = UnavailableError("limits_unavailable", "away", retry_after_s=1.0, reason="unreachable")


class FarYard(Yard):
    """A yard whose limits are counted elsewhere."""

    def __init__(self, runs: ThreadPoolExecutor, settings: LimitsSettings) -> None:
        self.counter = MemoryRemoteCounter(SystemClock())
        self.rates = RemoteRates(
            self.counter, MemoryRateCounter(SystemClock()), settings, retry_every_s=0.01, emit=lambda *_, **__: None
        )
        super().__init__(runs, commit_at_once, partial(WaitingPredictor, rates=self.rates))

    async def answers(self, count: int, **asked: Any) -> list[str]:
        """The codes of so many requests of one turn."""
        calls = self.ask(count, **asked)
        await self.until(lambda: all(call.answers for call in calls))
        return [call.code for call in calls]

    @property
    def daily_used(self) -> int:
        """What the shared counter says of the client with three predictions a day."""
        (used,) = self.counter.used.values()
        return used

    def told_left(self) -> int:
        """What this host says of it."""
        principal = self.predictor.authenticate(self.daily)
        assert self.predictor.clients is not None
        return self.predictor.clients.quotas.left(principal.slot, 3)[0]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Lets the loop turn until it is so."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)


def on_loop(test: Callable[[FarYard], Coroutine[Any, Any, None]], **chosen: Any) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as runs:
            yard = FarYard(runs, LimitsSettings(**{"timeout_ms": 5000, **chosen}))
            await asyncio.wait_for(test(yard), 20)
            await yard.rates.close()
            yard.close()

    asyncio.run(main())


def test_a_turn_is_one_exchange_with_a_number_for_each_client() -> None:
    """Seven requests of two clients in one turn are two numbers in one exchange; who came first passes."""

    async def test(yard: FarYard) -> None:
        calls = [*yard.ask(4), *yard.ask(3, key=yard.few)]
        await yard.until(lambda: all(call.answers for call in calls))
        assert [call.code for call in calls] == [""] * 6 + ["rate_limited"]
        assert [[one.count for one in asks] for asks in yard.counter.exchanges] == [[4, 3]]
        refused = calls[-1].answers[0]
        assert refused.rate is not None
        assert (refused.status, refused.rate.limit, refused.rate.remaining) == (429, 2, 0)
        assert calls[0].answers[0].rate is not None
        yard.check_quiet()
        assert yard.journal.records == 6

    on_loop(test)


def test_the_loop_goes_on_while_a_turn_waits() -> None:
    """P4: a counter that takes its time holds nothing but those who wait for it: no permit, no id, no record; wrong
    keys are refused meanwhile, and the record counts the wait."""

    async def test(yard: FarYard) -> None:
        yard.counter.holding = True
        calls = yard.ask(2)
        await turns(5)
        (stranger,) = yard.ask(key=b"mdy_unknown")
        await turns(5)
        assert stranger.code == "key_malformed"
        assert [call.answers for call in calls] == [[], []]
        yard.check_quiet()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.03
        await yard.until(lambda: loop.time() > until_s)
        yard.counter.let_go()
        await yard.until(lambda: all(call.answers for call in calls))
        assert [call.code for call in calls] == ["", ""]
        (frame, _) = read_frames(io.BytesIO(b"".join([*yard.journal.turns[-1], MARK])))
        header = frame.record_header()
        assert header.queue_us >= 30_000
        assert header.total_us >= header.queue_us

    on_loop(test)


@pytest.mark.parametrize(("on_failure", "code"), [("refuse", "limits_unavailable"), ("allow", "")])
def test_a_counter_that_fails(on_failure: str, code: str) -> None:
    """refuse: 503 with Retry-After, counted, not recorded. allow: served, within the host's own count."""

    async def test(yard: FarYard) -> None:
        yard.counter.error = AWAY
        for _ in range(3):  # the second and third do not ask it any more
            calls = yard.ask(2)
            await yard.until(lambda calls=calls: all(call.answers for call in calls))
            assert [call.code for call in calls] == [code] * 2
        if code:
            assert (calls[0].answers[0].status, calls[0].answers[0].retry_after_s) == (503, 1.0)
            assert yard.predictor.counters == {code: 6}
        few = yard.ask(3, key=yard.few)
        await yard.until(lambda: all(call.answers for call in few))
        assert [call.code for call in few] == ([code] * 3 if code else ["", "", "rate_limited"])
        yard.check_quiet()

    on_loop(test, on_failure=on_failure)


def test_what_is_no_prediction_waits_too() -> None:
    """`take`, for management routes: counted on the same allowance, with the same refusals."""

    async def test(yard: FarYard) -> None:
        principal = yard.predictor.authenticate(yard.few)
        assert [(await yard.predictor.take(principal)).remaining for _ in range(2)] == [1, 0]
        with pytest.raises(LimitError):
            await yard.predictor.take(principal)
        yard.counter.error = AWAY
        with pytest.raises(ModelyardError) as refused:
            await yard.predictor.take(principal)
        assert refused.value.code == "limits_unavailable"

    on_loop(test)


def test_a_daily_quota_is_shared_and_spent_by_predictions_alone() -> None:
    """What is refused, or no prediction, costs nothing of it: its share goes back. What is used is told by this host
    too."""

    async def test(yard: FarYard) -> None:
        table = yard.predictor.table
        yard.predictor.table = RoutingTable(2, (), {})
        assert await yard.answers(2, key=yard.daily) == ["model_not_found"] * 2
        await yard.until(lambda: yard.daily_used == 0)
        yard.predictor.table = table
        assert await yard.answers(2, key=yard.daily) == ["", ""]
        assert (yard.daily_used, yard.told_left()) == (2, 1)
        assert await yard.answers(3, key=yard.daily) == ["", "quota_exhausted", "quota_exhausted"]
        assert await yard.answers(1, key=yard.daily) == ["quota_exhausted"]
        assert (yard.daily_used, yard.told_left()) == (3, 0)
        assert await yard.answers(2) == ["", ""]
        yard.check_quiet()

    on_loop(test)


def test_a_quota_that_other_hosts_used_up() -> None:
    """Their predictions count here, and are known here from then on."""

    async def test(yard: FarYard) -> None:
        assert await yard.answers(1, key=yard.daily) == [""]
        for known in yard.counter.used:
            yard.counter.used[known] = 3
        assert await yard.answers(1, key=yard.daily) == ["quota_exhausted"]
        assert yard.told_left() == 0

    on_loop(test)


def test_a_lost_counter_does_not_give_the_day_again() -> None:
    """The counter forgets all: what this host knows is the count to go on with."""

    async def test(yard: FarYard) -> None:
        assert await yard.answers(2, key=yard.daily) == ["", ""]
        yard.counter.used.clear()
        assert await yard.answers(3, key=yard.daily) == ["", "quota_exhausted", "quota_exhausted"]

    on_loop(test)


def test_predictions_that_were_allowed_alone_count_afterwards() -> None:
    """on_failure = allow: while the counter is away this host's own count of the day bounds it, and is told when the
    counter is back."""

    async def test(yard: FarYard) -> None:
        assert await yard.answers(1, key=yard.daily) == [""]
        yard.counter.error = AWAY
        assert await yard.answers(1, key=yard.daily) == [""]
        assert await yard.answers(2, key=yard.daily) == ["", "quota_exhausted"]
        assert yard.daily_used == 1
        yard.counter.error = None
        await yard.until(lambda: yard.rates.breaker.closed)
        assert await yard.answers(1, key=yard.daily) == ["quota_exhausted"]
        assert yard.daily_used == 3

    on_loop(test, on_failure="allow")
