"""The rate counter in memory."""

from __future__ import annotations

import threading

from modelyard.core.clock import Clock
from modelyard.limits.ports import RateDecision


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
