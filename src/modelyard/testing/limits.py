"""Rate counters in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import msgspec

from modelyard.core.clock import Clock
from modelyard.limits.ports import QuotaShare, RateAsk, RateDecision


class MemoryRateCounter:
    """limits.ports.RateCounter of one process, by the generic cell rate algorithm (ITU-T I.371, virtual scheduling):
    per slot one theoretical arrival time, never more than a burst ahead of now. Safe for threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._arrivals: dict[int, float] = {}

    def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        """Takes up to `count` requests from the slot's allowance, atomically, one after the other."""
        with self._lock:
            now = self._clock.monotonic()
            whole_s = interval_s * burst
            arrival = min(max(self._arrivals.get(slot, now), now), now + whole_s)
            passed = 0
            while passed < count and (wait_s := arrival + interval_s - now - whole_s) <= 1e-9:
                arrival += interval_s
                passed += 1
            self._arrivals[slot] = arrival
        return RateDecision(
            passed=passed,
            limit=burst,
            remaining=int((now + whole_s - arrival) / interval_s + 1e-6),
            reset_s=arrival - now,
            retry_after_s=0.0 if passed == count else wait_s,
        )


class MemoryRemoteCounter:
    """limits.ports.RemoteCounter without a network. `error` is raised instead of counting, while it is set; while
    `holding`, calls wait for `let_go`. `exchanges` lists what was asked together, `used` is what clients used of their
    quotas, by id and day."""

    def __init__(self, clock: Clock) -> None:
        self.error: Exception | None = None
        self.exchanges: list[Sequence[RateAsk]] = []
        self.holding = False
        self.closed = False
        self.used: dict[tuple[str, int], int] = {}
        self._now = clock.now
        self._counter = MemoryRateCounter(clock)
        self._places: dict[str, int] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
        """One after the other, under one name for each client."""
        self.exchanges.append(asks)
        if self.holding:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        if self.error is not None:
            raise self.error
        return [self._decide(ask) for ask in asks]

    def _decide(self, ask: RateAsk) -> RateDecision:
        place = self._places.setdefault(ask.client_id, len(self._places))
        decision = self._counter.take(place, ask.interval_s, ask.burst, ask.count)
        if ask.quota_per_day is None:
            return decision
        told, today = (ask.client_id, ask.quota_day), (ask.client_id, int(self._now() // 86_400))
        if told in self.used:
            self.used[told] = max(0, self.used[told] + ask.quota_correction)
        elif ask.quota_kept:
            self.used[told] = ask.quota_kept
        used = self.used.get(today, 0)
        reserved = min(decision.passed, max(0, ask.quota_per_day - used))
        if reserved:
            self.used[today] = used + reserved
        return msgspec.structs.replace(decision, quota=QuotaShare(reserved, used + reserved, today[1]))

    def let_go(self) -> None:
        """All calls that wait go on; those that follow do not wait."""
        self.holding = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def close(self) -> None:
        """Nothing to give back."""
        self.closed = True
