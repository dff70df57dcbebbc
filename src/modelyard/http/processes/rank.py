"""The drain's place on a core that it shares with the workers.

Answers go first: the drain runs at the idle scheduling class, and takes the time that they leave over. That alone is
not enough on kernels with lazy preemption (Linux 6.12 and later): there a worker that wakes up waits until the running
process enters the kernel, or for the next tick, which is up to 4 ms. So the drain enters it often (`give_way`, about
every 20 microseconds; a call costs 0.2).

Nor is that enough where a step of the drain is long, as the JSON of a hundred rows is: nothing inside it gives way. So
the drain looks now and then whether it waited for the core longer than it had it (the kernel counts both), and if so
it rests for four times as long as it ran: at most a fifth of the core while workers need most of it.

If the spool fills up, or its oldest record becomes old, the drain takes part as an equal until it has caught up: an
answer that is late is better than one that must be refused because the spool is full. An equal gives way no longer:
who yields all the time gets nothing beside a worker that is always ready to run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

URGENT_SHARE, CALM_SHARE = 0.5, 0.25
"""Of the spool's bound: above the first the drain is an equal, below the second it goes behind again."""


LOOK_EVERY = 100
"""Records between two looks at the kernel's counts: a few milliseconds of work, and a look takes five microseconds."""
REST_TIMES, MOST_REST_S = 4.0, 0.25
SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Nanoseconds that this thread ran, and that it waited on a run queue (Linux, Documentation/scheduler/sched-stats)."""


class Rank:
    """Goes behind the workers, or beside them. `set_idle` is the system's; it may do nothing where there is no such
    class (then the drain is an equal always). `times` tells how long this thread ran and waited, in nanoseconds;
    `pause` rests for so many seconds."""

    def __init__(
        self,
        urgent_age_s: float,
        set_idle: Callable[[bool], None] | None = None,
        times: Callable[[], tuple[int, int]] | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._urgent_age_s = urgent_age_s
        self._set_idle = set_idle or _set_scheduling
        self._times = times or _run_and_wait_ns
        self._pause = pause
        self._records = 0
        self._last = self._times()
        self.urgent = False
        self._set_idle(True)

    def give_way(self) -> None:
        """Lets a worker run that waits for this core; called very often. An equal does not."""
        if not self.urgent:
            os.sched_yield()

    def between_records(self) -> None:
        """Gives way, and rests where the workers need the core more; never called inside a transaction."""
        self.give_way()
        self._records += 1
        if self._records < LOOK_EVERY:
            return
        self._records = 0
        (ran, waited), now = self._last, self._times()
        ran, waited = now[0] - ran, now[1] - waited
        if waited > ran and not self.urgent:
            self._pause(min(REST_TIMES * ran / 1e9, MOST_REST_S))
            now = self._times()
        self._last = now

    def judge(self, filled: float, oldest_age_s: float) -> None:
        """Called after each batch: which share of the spool is full, and how old the record is that was just read."""
        if self.urgent:
            urgent = filled > CALM_SHARE or oldest_age_s > self._urgent_age_s / 2
        else:
            urgent = filled > URGENT_SHARE or oldest_age_s > self._urgent_age_s
        if urgent != self.urgent:
            self.urgent = urgent
            self._set_idle(not urgent)


def _run_and_wait_ns() -> tuple[int, int]:
    try:
        ran, waited, _ = SCHEDSTAT.read_bytes().split()
    except (OSError, ValueError):  # a kernel that does not count it: no rests
        return 0, 0
    return int(ran), int(waited)


def _set_scheduling(idle: bool) -> None:
    # The nice value stays 0: without privileges a process that lowered it could not come back.
    with suppress(OSError, AttributeError):  # not on every system
        os.sched_setscheduler(0, os.SCHED_IDLE if idle else os.SCHED_OTHER, os.sched_param(0))
