"""What the limits station needs from the world."""

from __future__ import annotations

from typing import Protocol

import msgspec


class RateDecision(msgspec.Struct, frozen=True):
    """`remaining` whole requests are left now; `reset_s` until the whole burst is back; `retry_after_s` until one
    request will pass (0 if allowed)."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float


class RateCounter(Protocol):
    """The exact limit, shared by all workers of a host (later: by hosts)."""

    def take(self, slot: int, interval_s: float, burst: int) -> RateDecision:
        """Takes one request from the client's allowance, atomically. `interval_s` is the time between requests at
        the sustained rate."""
