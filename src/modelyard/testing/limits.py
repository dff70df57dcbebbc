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

    def take(self, slot: int, interval_s: float, burst: int) -> RateDecision:
        """Takes one request from the slot's allowance, atomically."""
        with self._lock:
            now = self._clock.monotonic()
            whole_s = interval_s * burst
            arrival = min(max(self._arrivals.get(slot, now), now), now + whole_s)
            wait_s = arrival + interval_s - now - whole_s
            allowed = wait_s <= 1e-9
            if allowed:
                arrival += interval_s
                self._arrivals[slot] = arrival
        return RateDecision(
            allowed=allowed,
            limit=burst,
            remaining=int((now + whole_s - arrival) / interval_s + 1e-6),
            reset_s=arrival - now,
            retry_after_s=0.0 if allowed else wait_s,
        )
