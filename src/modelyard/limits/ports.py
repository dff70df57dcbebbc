"""What the limits station needs from the world."""

from __future__ import annotations

from typing import Protocol

import msgspec


class RateDecision(msgspec.Struct, frozen=True):
    """How many of the requests that were asked for may pass. `remaining` whole requests are left after them;
    `reset_s` until the whole burst is back; `retry_after_s` until one more will pass (0 if all passed)."""

    passed: int
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float

    @property
    def allowed(self) -> bool:
        """Whether any passed."""
        return self.passed > 0


class RateCounter(Protocol):
    """The exact limit, shared by all workers of a host (later: by hosts)."""

    def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        """Takes up to `count` requests from the client's allowance, atomically; the same as taking them one by one at
        this moment. `interval_s` is the time between requests at the sustained rate."""
