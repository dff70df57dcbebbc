"""One process of all hosts does a thing: releases, retention, whatever must not run twice."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Fence(msgspec.Struct, frozen=True):
    """A lease that was got: its name, and a token that is larger than those of all holders before. Who writes under a
    lease hands it to the store, which checks the token in the transaction of the write: a holder that was put aside
    for longer than its lease can't write any more once another has taken over."""

    name: str
    token: int


class Leases(Protocol):
    """Leases with a time to live, by the clock of the database, so that hosts' clocks need not agree."""

    def acquire(self, name: str, holder: str, ttl_s: float) -> Fence | None:
        """The lease, if nobody else holds it now; a holder that asks again gets a new token."""

    def renew(self, fence: Fence, ttl_s: float) -> None:
        """Holds it for so long from now on; ConflictError("lease_lost") if another took over."""

    def release(self, fence: Fence) -> None:
        """Gives it back, if it is still held under this token."""
