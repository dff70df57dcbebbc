"""What the limits station needs from the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class QuotaShare(msgspec.Struct, frozen=True):
    """What was set aside of a client's quota of the UTC day `day` (whole days since 1970-01-01): `reserved` predictions
    for those who asked. With them, `used` are set aside or made of it by all hosts together."""

    reserved: int
    used: int
    day: int


class RateDecision(msgspec.Struct, frozen=True):
    """How many of the requests that were asked for may pass. `remaining` whole requests are left after them;
    `reset_s` until the whole burst is back; `retry_after_s` until one more will pass (0 if all passed). `quota` is None
    where no quota was named, or where none is counted here: then each host counts its own."""

    passed: int
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float
    quota: QuotaShare | None = None

    @property
    def allowed(self) -> bool:
        """Whether any passed."""
        return self.passed > 0


class RateCounter(Protocol):
    """The exact limit, shared by all workers of a host."""

    def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        """Takes up to `count` requests from the client's allowance, atomically; the same as taking them one by one at
        this moment. `interval_s` is the time between requests at the sustained rate."""


class RateAsk(msgspec.Struct, frozen=True):
    """What is asked for one client: `count` requests, of which `burst` may come at once and one every `interval_s` for
    ever. `client_id` is the client's on every host that shares its database; `slot` is its place in this host's own
    tables.

    Where the client has a quota, `quota_per_day` predictions of a UTC day, as many of those that pass are set aside as
    it leaves. For the day `quota_day`, `quota_correction` more predictions were made than were set aside (negative:
    fewer); that day's count is `quota_kept` if the counter has none (it was lost), corrections included."""

    client_id: str
    slot: int
    interval_s: float
    burst: int
    count: int = 1
    quota_per_day: int | None = None
    quota_day: int = 0
    quota_kept: int = 0
    quota_correction: int = 0


class RemoteCounter(Protocol):
    """The exact limit, shared by hosts: a counter behind a network. One for each worker, called on its loop.

    How to write one:

    * `storage/counters.py` opens it by the scheme of `limits.url`, which `core.settings` must know too.
    * All that is decided elsewhere stays there: `limits.remote` puts the requests of a turn together, bounds each call
      by `limits.timeout_ms` (it cancels the call), stops calling a counter that fails, tries it again every second,
      and does what `limits.on_failure` says meanwhile. So a counter tries nothing twice that may have been counted,
      catches no cancellation, and waits for nothing on its own.
    * Decisions are those of `limits.gcra`, by the counter's own clock, whatever clocks the hosts have: a stored time
      is never more than a burst ahead of that clock, so that a clock that jumps locks nobody out. Put the adapter into
      `tests/contract/test_remote_counter.py`, which says so in cases.
    * Daily quotas are counted with the rate, in `RateDecision.quota`, by the counter's own day; a counter that leaves
      them out leaves them to each host. A `count` of 0 only corrects.
    * A count that is lost with the counter's memory gives its clients at most one burst. State that is worth nothing
      any more (the burst is whole) goes by itself.
    """

    async def take(self, asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
        """A decision for each, in order, each taken atomically: many clients in one round trip, or side by side. A
        client may be named more than once. Connects where that is needed. UnavailableError("limits_unavailable"),
        whose `detail.reason` is a stable word: then the caller treats all of them as not counted."""

    async def close(self) -> None:
        """Gives everything back; a second call does nothing. Never raises."""
