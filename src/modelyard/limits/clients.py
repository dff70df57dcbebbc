"""A client's own bounds beside its rate: the daily quota and the permits, taken together, given back in one place."""

from __future__ import annotations

from modelyard.limits.concurrency import ClientPermits
from modelyard.limits.quota import Quotas


class ClientLimits:
    """The bounds of all clients on one worker; for the loop's thread. Who has neither bound never asks."""

    __slots__ = ("permits", "quotas")

    def __init__(self, quotas: Quotas, permits: ClientPermits) -> None:
        self.quotas = quotas
        self.permits = permits

    def admit(self, slot: int, quota_per_day: int | None, concurrency: int | None, client: str) -> None:
        """Takes one prediction of the client's bounds (None: it has none). A concurrency that was taken is given back
        by `release`. LimitError("concurrency_exceeded" | "quota_exhausted"), OverloadError("server_busy"): then
        nothing was taken."""
        if concurrency is not None:
            self.permits.take(slot, concurrency, client)
        if quota_per_day is not None:
            try:
                self.quotas.charge(slot, quota_per_day, client)
            except BaseException:
                if concurrency is not None:
                    self.permits.release(slot)
                raise

    def release(self, slot: int) -> None:
        """Gives back what `admit` took of a concurrency."""
        self.permits.release(slot)
