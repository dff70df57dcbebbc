"""The drain's place on a core that it shares with the workers.

Answers go first: the drain runs at the idle scheduling class, and takes the time that they leave over. That alone is
not enough on kernels with lazy preemption (Linux 6.12 and later): there a worker that wakes up waits until the running
process enters the kernel, or for the next tick, which is up to 4 ms. So the drain enters it often (`give_way`, about
every 20 microseconds; a call costs 0.2).

If the spool fills up, or its oldest record becomes old, the drain takes part as an equal until it has caught up: an
answer that is late is better than one that must be refused because the spool is full. An equal gives way no longer:
who yields all the time gets nothing beside a worker that is always ready to run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

URGENT_SHARE, CALM_SHARE = 0.5, 0.25
"""Of the spool's bound: above the first the drain is an equal, below the second it goes behind again."""


class Rank:
    """Goes behind the workers, or beside them. `set_idle` is the system's; it may do nothing where there is no such
    class (then the drain is an equal always)."""

    def __init__(self, urgent_age_s: float, set_idle: Callable[[bool], None] | None = None) -> None:
        self._urgent_age_s = urgent_age_s
        self._set_idle = set_idle or _set_scheduling
        self.urgent = False
        self._set_idle(True)

    def give_way(self) -> None:
        """Lets a worker run that waits for this core; called very often. An equal does not."""
        if not self.urgent:
            os.sched_yield()

    def judge(self, filled: float, oldest_age_s: float) -> None:
        """Called after each batch: which share of the spool is full, and how old the record is that was just read."""
        if self.urgent:
            urgent = filled > CALM_SHARE or oldest_age_s > self._urgent_age_s / 2
        else:
            urgent = filled > URGENT_SHARE or oldest_age_s > self._urgent_age_s
        if urgent != self.urgent:
            self.urgent = urgent
            self._set_idle(not urgent)


def _set_scheduling(idle: bool) -> None:
    # The nice value stays 0: without privileges a process that lowered it could not come back.
    with suppress(OSError, AttributeError):  # not on every system
        os.sched_setscheduler(0, os.SCHED_IDLE if idle else os.SCHED_OTHER, os.sched_param(0))
