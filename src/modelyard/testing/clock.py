"""A clock that turns only when told, and leases by it."""

from __future__ import annotations

import threading

from modelyard.core.clock import Clock, SystemClock
from modelyard.core.lease import Fence
from modelyard.storage import refusals


class FakeClock:
    """core.clock.Clock in a test's hands: `advance` turns both clocks, `jump_to` only the wall clock (promise P10)."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Seconds; grows by `advance` alone."""
        return self._monotonic

    def now(self) -> float:
        """UNIX seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Lets time pass; ValueError for a negative span."""
        if seconds < 0:
            raise ValueError("time does not run backwards; jump_to moves the wall clock")
        self._monotonic += seconds
        self._now += seconds

    def jump_to(self, now: float) -> None:
        """Sets the wall clock, as an administrator or a time server would."""
        self._now = now


class MemoryLeases:
    """core.lease.Leases in memory, by the monotonic clock, safe for threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._held: dict[str, tuple[str, int, float]] = {}

    def acquire(self, name: str, holder: str, ttl_s: float) -> Fence | None:
        """The lease, if nobody else holds it now."""
        with self._lock:
            now = self._clock.monotonic()
            other, token, expires_at = self._held.get(name, ("", 0, 0.0))
            if other not in ("", holder) and expires_at > now:
                return None
            self._held[name] = holder, token + 1, now + ttl_s
            return Fence(name, token + 1)

    def renew(self, fence: Fence, ttl_s: float) -> None:
        """Holds it for so long from now on."""
        self.check(fence)
        with self._lock:
            holder, token, _ = self._held[fence.name]
            self._held[fence.name] = holder, token, self._clock.monotonic() + ttl_s

    def release(self, fence: Fence) -> None:
        """Gives it back."""
        with self._lock:
            if self._held.get(fence.name, ("", 0, 0.0))[1] == fence.token:
                self._held[fence.name] = "", fence.token, 0.0

    def check(self, fence: Fence | None) -> None:
        """ConflictError("lease_lost") unless the token is the latest."""
        held = ("", 0, 0.0) if fence is None else self._held.get(fence.name, ("", 0, 0.0))
        if fence is not None and (held[1] != fence.token or not held[0]):
            raise refusals.lease_lost(fence)
