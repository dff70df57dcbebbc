"""The exact rate limit of a host: GCRA in shared memory.

The generic cell rate algorithm (ITU-T Recommendation I.371, annex A, "virtual scheduling"): per client one number,
the theoretical arrival time (TAT) of the next request. With T the time between requests at the sustained rate and
tau = (burst - 1) * T, a request at time t passes if t >= TAT - tau; then TAT becomes max(t, TAT) + T. Several requests
at one time t pass together if they would have passed one after the other. So in any span of w seconds at most
burst + w / T requests pass: no window has a border at which a client could spend twice.

TAT is a 64-bit count of CLOCK_MONOTONIC nanoseconds, 8 bytes a client, in a memory file that the parent creates anew
at each start and the workers inherit. Reading and writing it happens under a POSIX record lock on the client's own 8
bytes. That kind of lock belongs to the process, so workers may share the inherited descriptor (flock and F_OFD locks
belong to the open file, which inherited descriptors have in common: they would exclude nobody), the kernel releases
it when its holder dies, whatever killed it, and no forked child can keep it alive. Its price: it does not exclude
threads of one process, so `take` may only be called on one thread (the loop's), and closing any descriptor of the
file drops the process's locks, so nothing else in a worker opens it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from typing import Literal

from modelyard.core.clock import Clock
from modelyard.core.errors import OverloadError
from modelyard.core.events import Event
from modelyard.limits.ports import RateDecision
from modelyard.telemetry.logs import Emit, emit

SLOT_BYTES = 8
LOCK_TIMEOUT_S = 0.25
"""A lock is held for about a microsecond; who cannot get it for this long waits for a stopped process. Not shorter: on
a machine with eight times more to do than cores a holder was put aside for more than 50 ms, three times in 2.2 million
requests, and its neighbour refused."""
RETRY_AFTER_S = 1.0

_LOCK, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_lockf = fcntl.lockf


class SharedGcra:
    """The RateCounter of all worker processes of a host. One thread of a process may call `take`."""

    def __init__(
        self,
        descriptor: int,
        clock: Clock,
        *,
        on_failure: Literal["allow", "refuse"] = "refuse",
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        emit: Emit = emit,
    ) -> None:
        self._fd = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._arrivals = memoryview(self._map).cast("q")
        self._monotonic = clock.monotonic
        self._allow_on_failure = on_failure == "allow"
        self._lock_timeout_s = lock_timeout_s
        self._emit = emit
        self._failed = False

    @staticmethod
    def create(max_clients: int) -> int:
        """A descriptor of fresh state for so many slots, all of them full. The parent calls it at each start and
        hands it to its workers (`pass_fds`, or fork); nothing of an earlier start or boot is ever read."""
        descriptor = os.memfd_create("modelyard-limits", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, max_clients * SLOT_BYTES)
        return descriptor

    @classmethod
    def attach(cls, descriptor: int, clock: Clock, *, on_failure: Literal["allow", "refuse"] = "refuse") -> SharedGcra:
        """The counter over a descriptor that `create` made, in this or in a parent process."""
        return cls(descriptor, clock, on_failure=on_failure)

    def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        """Takes up to `count` requests under one lock; see RateCounter. When the state cannot be reached,
        `limits.on_failure` decides: OverloadError("server_busy"), or a pass that counts nothing."""
        interval = int(interval_s * 1e9 + 0.5) or 1
        depth = interval * burst
        start = slot * SLOT_BYTES
        arrivals, descriptor = self._arrivals, self._fd
        try:
            try:
                _lockf(descriptor, _LOCK, SLOT_BYTES, start)
            except (BlockingIOError, PermissionError):
                self._wait(start)
            try:
                now = int(self._monotonic() * 1e9)
                # How much of the burst is spent, as time. The bounds keep a client from being locked out, or let
                # through, by a value that this clock and this rate cannot have made (a simulated reboot, a limit
                # that was just changed).
                spent = arrivals[slot] - now
                if spent < 0:
                    spent = 0
                elif spent > depth:
                    spent = depth
                passed = (depth - spent) // interval
                if passed > count:
                    passed = count
                spent += passed * interval
                arrivals[slot] = now + spent
            finally:
                _lockf(descriptor, _UNLOCK, SLOT_BYTES, start)
        except (OSError, IndexError, ValueError) as error:
            return self._failure(error, burst, count)
        self._failed = False
        return RateDecision(
            passed,
            burst,
            (depth - spent) // interval,
            spent / 1e9,
            0.0 if passed == count else (spent + interval - depth) / 1e9,
        )

    def close(self) -> None:
        """Unmaps the state; the descriptor stays the caller's."""
        self._arrivals.release()
        self._map.close()

    def _wait(self, start: int) -> None:
        """Another worker decides for the same client now: let it run, then try again, for a bounded time.
        BlockingIOError when the time is over."""
        # The machine's clock, whatever clock counts the rate: this wait is for a real process.
        deadline_s = time.monotonic() + self._lock_timeout_s
        while True:
            os.sched_yield()
            try:
                _lockf(self._fd, _LOCK, SLOT_BYTES, start)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline_s:
                    raise BlockingIOError("the lock of the client's slot is held for too long") from None

    def _failure(self, error: Exception, burst: int, count: int) -> RateDecision:
        if not self._failed:
            self._emit(Event.LIMIT_COUNTER_FAILED, "error", reason=str(error), allowed=self._allow_on_failure)
            self._failed = True
        if self._allow_on_failure:
            return RateDecision(count, burst, 0, 0.0, 0.0)
        raise OverloadError(
            "server_busy", "The rate counter does not answer; nothing was done.", retry_after_s=RETRY_AFTER_S
        )
