"""One worker's way to a counter that hosts share: what is put together, what is bounded, what happens when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import ModelyardError, OverloadError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import LimitsSettings
from modelyard.limits.breaker import PROBE
from modelyard.limits.ports import RateAsk, RateDecision
from modelyard.limits.remote import RemoteRates, Verdict
from modelyard.testing import FakeClock, MemoryRateCounter, MemoryRemoteCounter

AWAY = UnavailableError("limits_unavailable", "away", retry_after_s=1.0, reason="unreachable")


def ask(client: str, count: int = 1, burst: int = 5) -> RateAsk:
    return RateAsk(client, ord(client[0]), 3600.0, burst, count)


class Yard:
    """A counter without a network, the rates over it, and what was said."""

    def __init__(self, **chosen: Any) -> None:
        self.counter = MemoryRemoteCounter(FakeClock())
        self.own = MemoryRateCounter(FakeClock())
        self.said: list[tuple[Event, dict[str, Any]]] = []
        settings = LimitsSettings(**{"timeout_ms": 5000, **chosen})
        self.rates = RemoteRates(self.counter, self.own, settings, retry_every_s=0.01, emit=self._note)

    def _note(self, event: Event, level: str = "info", **fields: Any) -> None:
        self.said.append((event, fields))

    def asked(self, *asks: RateAsk) -> list[Sequence[Verdict]]:
        """Asks for a turn; the list is empty until the verdicts come."""
        heard: list[Sequence[Verdict]] = []
        self.rates.ask(asks, heard.append)
        return heard

    async def until(self, condition: Callable[[], Any]) -> None:
        """Lets the loop turn until it is so."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    @property
    def exchanges(self) -> list[list[tuple[str, int]]]:
        """What was asked together, probes left out."""
        found = [[(one.client_id, one.count) for one in asks if one is not PROBE] for asks in self.counter.exchanges]
        return [asks for asks in found if asks]


def on_loop(test: Callable[[Yard], Coroutine[Any, Any, None]], **chosen: Any) -> None:
    async def main() -> None:
        yard = Yard(**chosen)
        await asyncio.wait_for(test(yard), 20)
        await yard.rates.close()
        assert yard.counter.closed

    asyncio.run(main())


def passed(verdicts: Sequence[Verdict]) -> list[int]:
    assert all(isinstance(verdict, RateDecision) for verdict in verdicts)
    return [verdict.passed for verdict in verdicts if isinstance(verdict, RateDecision)]


def codes(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.code if isinstance(verdict, ModelyardError) else "" for verdict in verdicts]


def test_what_comes_during_an_exchange_goes_with_the_next_a_client_as_one() -> None:
    """Three turns while the first is on its way: one exchange carries them, each client's requests as one number, and
    who came first passes first."""

    async def test(yard: Yard) -> None:
        yard.counter.holding = True
        first = yard.asked(ask("a", 1))
        await yard.until(lambda: yard.counter.exchanges)
        later = [yard.asked(ask("a", 3), ask("b", 2)), yard.asked(ask("b", 1)), yard.asked(ask("a", 3))]
        assert first == [] == later[0]
        yard.counter.let_go()
        await yard.until(lambda: later[2])
        assert yard.exchanges == [[("a", 1)], [("a", 6), ("b", 3)]]
        assert [passed(heard[0]) for heard in (first, *later)] == [[1], [3, 2], [1], [1]]
        cut = later[2][0][0]
        assert isinstance(cut, RateDecision)
        assert (cut.remaining, cut.retry_after_s) == (0, pytest.approx(3600.0))
        whole = later[0][0][0]
        assert isinstance(whole, RateDecision)
        assert whole.retry_after_s == 0.0

    on_loop(test)


def test_a_quota_is_shared_out_in_the_order_of_asking() -> None:
    """Of a quota of four: one for the first turn, two for the second, one of two for the third; they went together,
    and so did what they had to say of the day."""

    def daily(count: int, correction: int = 0) -> RateAsk:
        today = int(FakeClock().now() // 86_400)
        return msgspec.structs.replace(
            ask("a", count), quota_per_day=4, quota_day=today, quota_correction=correction, quota_kept=2
        )

    async def test(yard: Yard) -> None:
        yard.counter.used["a", int(FakeClock().now() // 86_400)] = 0
        yard.counter.holding = True
        first = yard.asked(daily(1))
        await yard.until(lambda: yard.counter.exchanges)
        later = [yard.asked(daily(2, 1)), yard.asked(daily(2, -1))]
        yard.counter.let_go()
        await yard.until(lambda: later[1])
        shares = [heard[0][0].quota for heard in (first, *later) if isinstance(heard[0][0], RateDecision)]
        assert [(share.reserved, share.used) for share in shares if share is not None] == [(1, 1), (2, 4), (1, 4)]
        assert yard.counter.exchanges[1][0].quota_correction == 0

    on_loop(test)


def test_a_limit_that_was_just_changed_stands_beside_the_old_one() -> None:
    """Asks of one client under two limits are not added up."""

    async def test(yard: Yard) -> None:
        heard = yard.asked(ask("a", 1, burst=5), ask("a", 1, burst=6))
        await yard.until(lambda: heard)
        assert yard.exchanges == [[("a", 1), ("a", 1)]]

    on_loop(test)


def test_a_silent_counter_costs_the_bound_and_then_nothing() -> None:
    """P4: it hangs: the first turn, and all that waited behind it, hear `limits_unavailable` after the bound; whoever
    asks then hears it in the same call."""

    async def test(yard: Yard) -> None:
        yard.counter.holding = True
        first = yard.asked(ask("a"))
        await yard.until(lambda: yard.counter.exchanges)
        second = yard.asked(ask("b", 2))
        await yard.until(lambda: second)
        assert codes([*first[0], *second[0]]) == ["limits_unavailable"] * 2
        assert codes(yard.asked(ask("c"))[0]) == ["limits_unavailable"]
        assert yard.exchanges == [[("a", 1)]]
        ((event, fields),) = yard.said
        assert (event, fields["reason"], fields["on_failure"]) == (Event.LIMIT_COUNTER_FAILED, "too_slow", "refuse")

    on_loop(test, timeout_ms=20)


@pytest.mark.parametrize(
    ("error", "reason"), [(AWAY, "unreachable"), (RuntimeError("host=10.0.0.1 user=x"), "RuntimeError")]
)
def test_it_is_tried_again_and_what_was_refused_is_told(error: Exception, reason: str) -> None:
    """A failure is one event with our word for it, however many ask; when the counter answers again a second one says
    how many were refused, and requests are counted again."""

    async def test(yard: Yard) -> None:
        yard.counter.error = error
        heard = yard.asked(ask("a", 2))
        await yard.until(lambda: heard)
        for _ in range(3):
            yard.asked(ask("a", 1))
        tries = len(yard.counter.exchanges)
        await yard.until(lambda: len(yard.counter.exchanges) > tries + 2)
        assert not yard.rates.breaker.closed
        yard.counter.error = None
        await yard.until(lambda: yard.rates.breaker.closed)
        again = yard.asked(ask("a", 9))
        await yard.until(lambda: again)
        assert passed(again[0]) == [5]
        assert [event for event, _ in yard.said] == [Event.LIMIT_COUNTER_FAILED, Event.LIMIT_COUNTER_HEALED]
        assert yard.said[0][1]["reason"] == reason
        assert (yard.said[1][1]["refused"], yard.said[1][1]["allowed"]) == (5, 0)

    on_loop(test)


def test_allow_is_bounded_by_the_hosts_own_counter() -> None:
    """on_failure = allow: never without a limit. Each host alone lets the whole limit pass, exactly, and says what it
    let pass uncounted."""

    async def test(yard: Yard) -> None:
        yard.counter.error = AWAY
        heard = yard.asked(ask("a", 3))
        await yard.until(lambda: heard)
        more = [yard.asked(ask("a", 3))[0] for _ in range(3)]
        assert [passed(one) for one in (heard[0], *more)] == [[3], [2], [0], [0]]
        yard.counter.error = None
        await yard.until(lambda: yard.rates.breaker.closed)
        assert (yard.said[-1][1]["refused"], yard.said[-1][1]["allowed"]) == (7, 5)

    on_loop(test, on_failure="allow")


def test_allow_with_a_host_counter_that_fails_too() -> None:
    """Then it is a refusal: nobody passes uncounted."""

    async def test(yard: Yard) -> None:
        yard.counter.error = AWAY

        def fail(*_: Any) -> None:
            raise OverloadError("server_busy", "no", retry_after_s=1.0)

        yard.own.take = fail  # type: ignore[assignment]
        heard = yard.asked(ask("a", 3))
        await yard.until(lambda: heard)
        assert codes(heard[0]) == ["server_busy"]

    on_loop(test, on_failure="allow")


def test_a_counter_slower_than_the_bound_is_not_taken_for_healed() -> None:
    """It answers, later than a request would wait for: probes do not close the breaker, and no request waits."""

    async def test(yard: Yard) -> None:
        real = yard.counter.take

        async def slowly(asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
            await asyncio.sleep(0.05)
            return await real(asks)

        yard.counter.take = slowly  # type: ignore[method-assign]
        heard = yard.asked(ask("a"))
        await yard.until(lambda: heard)
        await yard.until(lambda: len(yard.counter.exchanges) >= 3)
        assert not yard.rates.breaker.closed
        assert [event for event, _ in yard.said] == [Event.LIMIT_COUNTER_FAILED]

    on_loop(test, timeout_ms=10)


def test_a_turn_that_breaks_ends_no_other() -> None:
    """A bug behind one turn's verdicts is said, and the turns after it hear theirs."""

    async def test(yard: Yard) -> None:
        yard.rates.ask([ask("a")], lambda _: 1 / 0)
        heard = yard.asked(ask("b"))
        await yard.until(lambda: heard)
        assert passed(heard[0]) == [1]
        assert [event for event, _ in yard.said] == [Event.REQUEST_FAILED]

    on_loop(test)


def test_who_waits_at_the_end_is_refused() -> None:
    """`close` during an exchange: everybody hears something, and nothing is left running."""

    async def test(yard: Yard) -> None:
        yard.counter.holding = True
        first = yard.asked(ask("a"))
        await yard.until(lambda: yard.counter.exchanges)
        second = yard.asked(ask("b"))
        await yard.rates.close()
        assert codes([*first[0], *second[0]]) == ["limits_unavailable"] * 2
        assert len(asyncio.all_tasks()) == 2  # this test and its deadline

    on_loop(test)


def test_a_counter_that_is_away_at_the_start_is_no_reason_not_to_start() -> None:
    """`start` returns, the breaker is open, and it heals by itself."""

    async def test(yard: Yard) -> None:
        yard.counter.error = AWAY
        await yard.rates.start()
        assert codes(yard.asked(ask("a"))[0]) == ["limits_unavailable"]
        yard.counter.error = None
        await yard.until(lambda: yard.rates.breaker.closed)

    on_loop(test)


def test_one_request_may_be_awaited() -> None:
    """For routes that are no predictions."""

    async def test(yard: Yard) -> None:
        verdicts = [await yard.rates.take(ask("a")) for _ in range(6)]
        assert passed(verdicts) == [1] * 5 + [0]

    on_loop(test)
