"""Limits that hosts share, as one worker asks for them: the requests of a turn together, one exchange at a time.

While an exchange is on its way, what comes is gathered; the next one carries all of it, a client's requests as one
number. So a worker has one exchange under way however many requests it gets, a client's are counted in the order in
which they came, and nothing waits for longer than two exchanges, each bounded by `limits.timeout_ms`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from modelyard.core.errors import ModelyardError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import LimitsSettings
from modelyard.limits.breaker import RETRY_EVERY_S, Breaker
from modelyard.limits.ports import QuotaShare, RateAsk, RateCounter, RateDecision, RemoteCounter
from modelyard.telemetry.logs import Emit, emit

Verdict = RateDecision | ModelyardError
Then = Callable[[Sequence[Verdict]], None]
"""Hears the verdicts of what was asked together, in order."""


class RemoteRates:
    """One worker's way to a RemoteCounter; for the loop's thread. `own` is the host's own counter: it bounds each host
    by the whole limit while the shared one is away, where `limits.on_failure` is `allow`."""

    def __init__(
        self,
        counter: RemoteCounter,
        own: RateCounter,
        settings: LimitsSettings,
        *,
        retry_every_s: float = RETRY_EVERY_S,
        emit: Emit = emit,
    ) -> None:
        self._counter = counter
        self._own = own
        self._timeout_s = settings.timeout_ms / 1e3
        self._allow = settings.on_failure == "allow"
        self._emit = emit
        self.breaker = Breaker(counter, self._timeout_s, self._allow, retry_every_s=retry_every_s, emit=emit)
        self._waiting: list[tuple[Sequence[RateAsk], Then]] = []
        self._exchanging: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects, so that the first request need not wait for that. A counter that is away is no reason not to
        start."""
        try:
            await self.breaker.try_once()
        except Exception as error:
            self.breaker.trip(error)

    async def close(self) -> None:
        """Ends what is under way; nobody may ask any more. Who still waits gets a refusal."""
        task, self._exchanging = self._exchanging, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        await self.breaker.close()
        await self._counter.close()
        waiting, self._waiting = self._waiting, []
        for asks, then in waiting:
            self._tell(then, [unavailable() for _ in asks])

    def ask(self, asks: Sequence[RateAsk], then: Then) -> None:
        """Has them counted. `then` is called exactly once on the loop's thread: within this call if the counter is
        left alone now. Never raises."""
        if not self.breaker.closed:
            self._tell(then, [self._without(ask) for ask in asks])
            return
        self._waiting.append((asks, then))
        if self._exchanging is None:
            self._exchanging = asyncio.get_running_loop().create_task(self._exchange())

    async def take(self, ask: RateAsk) -> Verdict:
        """The same for one, to be awaited."""
        found: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def then(verdicts: Sequence[Verdict]) -> None:
            if not found.done():
                found.set_result(verdicts[0])

        self.ask([ask], then)
        return await found

    async def _exchange(self) -> None:
        """Until nobody waits."""
        while self._waiting:
            turns, self._waiting = self._waiting, []
            try:
                found = await self._counted([ask for asks, _ in turns for ask in asks])
            except asyncio.CancelledError:
                self._waiting = [*turns, *self._waiting]
                raise
            begin = 0
            for asks, then in turns:
                self._tell(then, found[begin : begin + len(asks)])
                begin += len(asks)
        self._exchanging = None

    async def _counted(self, asks: Sequence[RateAsk]) -> Sequence[Verdict]:
        if self.breaker.closed:  # it may have opened while they waited
            groups = grouped(asks)
            try:
                async with asyncio.timeout(self._timeout_s):
                    decisions = await self._counter.take([together(asks, group) for group in groups])
                return shared_out(asks, groups, decisions)
            except Exception as error:
                self.breaker.trip(error)
        return [self._without(ask) for ask in asks]

    def _without(self, ask: RateAsk) -> Verdict:
        """What `limits.on_failure` says of requests that nobody counted."""
        if not self._allow:
            self.breaker.refused += ask.count
            return unavailable()
        try:
            decision = self._own.take(ask.slot, ask.interval_s, ask.burst, ask.count)
        except ModelyardError as error:
            self.breaker.refused += ask.count
            return error
        self.breaker.allowed += decision.passed
        self.breaker.refused += ask.count - decision.passed
        return decision

    def _tell(self, then: Then, verdicts: Sequence[Verdict]) -> None:
        try:
            then(verdicts)
        except Exception:  # of one turn, which must not end the exchanges of all that follow
            self._emit(Event.REQUEST_FAILED, "error", request_id="limits", exc_info=True)


Group = Sequence[int]
"""Places of asks that are counted as one."""


def grouped(asks: Sequence[RateAsk]) -> list[Group]:
    """The asks of a client under one limit, together, in order. A limit that was changed a moment ago may stand beside
    the old one: then they are two."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, ask in enumerate(asks):
        alike = (ask.client_id, ask.interval_s, ask.burst, ask.quota_per_day, ask.quota_day)
        groups.setdefault(alike, []).append(place)
    return list(groups.values())


def together(asks: Sequence[RateAsk], group: Group) -> RateAsk:
    """One ask for all of a group."""
    if len(group) == 1:
        return asks[group[0]]
    every = [asks[place] for place in group]
    return msgspec.structs.replace(
        every[0],
        count=sum(ask.count for ask in every),
        quota_kept=max(ask.quota_kept for ask in every),
        quota_correction=sum(ask.quota_correction for ask in every),
    )


def shared_out(
    asks: Sequence[RateAsk], groups: Sequence[Group], decisions: Sequence[RateDecision]
) -> Sequence[RateDecision]:
    """A decision for each ask: who came first passes first. What is left is told to all as it is now."""
    found: list[RateDecision | None] = [None] * len(asks)
    for group, decision in zip(groups, decisions, strict=True):
        left, quota = decision.passed, decision.quota
        for place in group:
            passed = min(asks[place].count, left)
            left -= passed
            wait_s = 0.0 if passed == asks[place].count else decision.retry_after_s
            share, quota = _cut(quota, passed)
            found[place] = RateDecision(passed, decision.limit, decision.remaining, decision.reset_s, wait_s, share)
    return [decision for decision in found if decision is not None]


def _cut(quota: QuotaShare | None, most: int) -> tuple[QuotaShare | None, QuotaShare | None]:
    """Up to so many of what was set aside, and the rest."""
    if quota is None:
        return None, None
    reserved = min(most, quota.reserved)
    return QuotaShare(reserved, quota.used, quota.day), QuotaShare(quota.reserved - reserved, quota.used, quota.day)


def unavailable() -> UnavailableError:
    """Nobody counts now, and `limits.on_failure` is `refuse`."""
    return UnavailableError(
        "limits_unavailable",
        "The counter of the limits does not answer; nothing was done.",
        retry_after_s=RETRY_EVERY_S,
        field="limits.url",
    )
