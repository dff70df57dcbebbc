"""Rolling up: one process of all hosts does it, beside its other work."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

from modelyard.analytics.ports import AnalyticsStore
from modelyard.core.clock import Clock
from modelyard.core.lease import Leases

LEASE, LEASE_S = "rollups", 120.0
"""Much longer than one step takes, which is an hour of the log at most."""


class Roller:
    """Rolls up what waits. `run` may be called in any thread, one at a time."""

    def __init__(self, store: AnalyticsStore, leases: Leases, clock: Clock) -> None:
        self._store = store
        self._leases = leases
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._clock = clock

    def run(self, going_on: Callable[[], bool] = lambda: True, most_steps: int | None = None) -> int:
        """Rolls up, the newest first, until nothing waits, as long as `going_on()`; how many minutes that were. Nothing
        where another process does it. UnavailableError if the database does not take it."""
        if not self._store.waiting(self._clock.now()):
            return 0
        fence = self._leases.acquire(LEASE, self._holder, LEASE_S)
        if fence is None:
            return 0
        minutes = steps = 0
        try:
            while going_on() and (most_steps is None or steps < most_steps):
                rolled = self._store.roll(self._clock.now(), fence)
                minutes, steps = minutes + rolled.minutes, steps + 1
                if not rolled.more:
                    break
                self._leases.renew(fence, LEASE_S)
        finally:
            self._leases.release(fence)
        return minutes
