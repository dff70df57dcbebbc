"""Daily quotas of a host, exact over its workers: one count per client and UTC day in shared memory.

A client has four words, one for each of four days in a row (`day % 4`), so that a wall clock that jumps by a day, or
three, and back again finds the count that it left: nobody is locked out, nobody gets a day twice. A jump further than
that may give a client its quota once more, and takes nothing away. A word holds the day (24 bits, enough until the
year 47,000) and the count (40 bits), so that one store of eight bytes changes both: who reads without a lock sees the
old pair or the new one. Counting happens under a POSIX record lock on the client's own words, as in `limits.gcra`:
the kernel releases it when its holder dies, and only one thread of a process (the loop's) may count.

The memory lives as long as the parent process. `QuotaKeeper` writes what changed to a store twice a second.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import time
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from modelyard.core.clock import Clock
from modelyard.core.errors import LimitError, OverloadError
from modelyard.core.events import Event
from modelyard.limits.gcra import LOCK_TIMEOUT_S, RETRY_AFTER_S
from modelyard.telemetry.logs import Emit, emit

DAY_S = 86_400
DAYS = 4
WORD_BYTES = 8
SLOT_BYTES = DAYS * WORD_BYTES
HEAD_BYTES = SLOT_BYTES
"""Before the first slot: its lock says which process keeps the counts."""
REFUSED = -1

_COUNT_BITS = 40
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_MAX_DAY = (1 << 23) - 1
_LOCK, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_lockf = fcntl.lockf


class Used(NamedTuple):
    """`count` predictions of a slot on one UTC day (whole days since 1970-01-01)."""

    slot: int
    day: int
    count: int  # type: ignore[assignment]  # nobody misses tuple.count


def utc_day(now: float) -> int:
    """The UTC day of a UNIX time, bounded so that a mad clock cannot break a count."""
    return min(max(int(now // DAY_S), 0), _MAX_DAY)


def until_midnight_s(now: float) -> float:
    """Seconds until the next UTC day begins, more than 0 and at most a day."""
    return DAY_S - now % DAY_S


class SharedQuota:
    """The daily counts of all worker processes of a host. One thread of a process may call `take`."""

    def __init__(
        self,
        descriptor: int,
        *,
        on_failure: Literal["allow", "refuse"] = "refuse",
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        emit: Emit = emit,
    ) -> None:
        self._fd = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._words = memoryview(self._map).cast("q")
        self._allow_on_failure = on_failure == "allow"
        self._lock_timeout_s = lock_timeout_s
        self._emit = emit
        self._failed = False

    @staticmethod
    def create(max_clients: int) -> int:
        """A descriptor of fresh counts for so many slots. The parent calls it at each start, restores what a store
        kept, and hands it to its workers."""
        descriptor = os.memfd_create("modelyard-quotas", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, HEAD_BYTES + max_clients * SLOT_BYTES)
        return descriptor

    def take(self, slot: int, most: int, day: int) -> int:
        """Takes one prediction of a client's `most` for this UTC day: how many are left then, REFUSED if none was.
        When the counts cannot be reached, `limits.on_failure` decides: OverloadError("server_busy"), or a pass that
        counts nothing."""
        start = HEAD_BYTES + slot * SLOT_BYTES
        descriptor = self._fd
        try:
            try:
                _lockf(descriptor, _LOCK, SLOT_BYTES, start)
            except (BlockingIOError, PermissionError):
                self._wait(start)
            try:
                place = start // WORD_BYTES + day % DAYS
                word = self._words[place]
                count = word & _COUNT_MASK if word >> _COUNT_BITS == day else 0
                allowed = count < most
                if allowed:
                    count += 1
                    self._words[place] = day << _COUNT_BITS | count
            finally:
                _lockf(descriptor, _UNLOCK, SLOT_BYTES, start)
        except (OSError, IndexError, ValueError) as error:
            return self._failure(error, most)
        self._failed = False
        return most - count if allowed else REFUSED

    def raise_to(self, slot: int, day: int, count: int) -> None:
        """What a client used of this day is at least so much: others counted it. Where the counts cannot be reached
        nothing is done: theirs is the count that matters."""
        start = HEAD_BYTES + slot * SLOT_BYTES
        try:
            _lockf(self._fd, _LOCK, SLOT_BYTES, start)
            try:
                place = start // WORD_BYTES + day % DAYS
                word = self._words[place]
                if word >> _COUNT_BITS != day or word & _COUNT_MASK < count:
                    self._words[place] = day << _COUNT_BITS | min(count, _COUNT_MASK)
            finally:
                _lockf(self._fd, _UNLOCK, SLOT_BYTES, start)
        except (OSError, IndexError, ValueError):
            return

    def used(self, slot: int, day: int) -> int:
        """What a client used of this day; takes nothing and locks nothing, any thread may ask."""
        word = self._words[(HEAD_BYTES + slot * SLOT_BYTES) // WORD_BYTES + day % DAYS]
        return word & _COUNT_MASK if word >> _COUNT_BITS == day else 0

    def counts(self, slots: Iterable[int]) -> list[Used]:
        """All counts of these slots; takes nothing and locks nothing, any thread may ask."""
        found: list[Used] = []
        for slot in slots:
            first = (HEAD_BYTES + slot * SLOT_BYTES) // WORD_BYTES
            for word in self._words[first : first + DAYS]:
                if word & _COUNT_MASK:
                    found.append(Used(slot, word >> _COUNT_BITS, word & _COUNT_MASK))
        return found

    def restore(self, kept: Iterable[Used], day: int) -> None:
        """Puts back what a store kept; of two days with one place the one nearer to `day` wins. For the parent,
        before there is any worker."""
        for use in sorted(kept, key=lambda use: -abs(use.day - day)):
            self._words[(HEAD_BYTES + use.slot * SLOT_BYTES) // WORD_BYTES + use.day % DAYS] = (
                use.day << _COUNT_BITS | min(use.count, _COUNT_MASK)
            )

    def keeps(self) -> bool:
        """Whether this process is the one that writes the counts to the store: the first that asks, until it ends."""
        try:
            _lockf(self._fd, _LOCK, WORD_BYTES, 0)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def close(self) -> None:
        """Unmaps the counts; the descriptor stays the caller's."""
        self._words.release()
        self._map.close()

    def _wait(self, start: int) -> None:
        """Another worker counts the same client now: let it run, then try again, for a bounded time."""
        deadline_s = time.monotonic() + self._lock_timeout_s
        while True:
            os.sched_yield()
            try:
                _lockf(self._fd, _LOCK, SLOT_BYTES, start)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline_s:
                    raise BlockingIOError("the lock of the client's quota is held for too long") from None

    def _failure(self, error: Exception, most: int) -> int:
        if not self._failed:
            self._emit(Event.LIMIT_COUNTER_FAILED, "error", reason=str(error), allowed=self._allow_on_failure)
            self._failed = True
        if self._allow_on_failure:
            return most
        raise OverloadError(
            "server_busy", "The quota's counter does not answer; nothing was done.", retry_after_s=RETRY_AFTER_S
        )


class Quotas:
    """Daily quotas as the spine asks for them: by the wall clock, in our words."""

    __slots__ = ("_clock", "_now", "shared")

    def __init__(self, shared: SharedQuota, clock: Clock) -> None:
        self.shared = shared
        self._clock = clock
        self._now = clock.now

    def charge(self, slot: int, most: int, client: str) -> int:
        """Takes one prediction of the client's quota of this UTC day, and says what is left;
        LimitError("quota_exhausted") with the time until the next day."""
        now = self._now()
        left = self.shared.take(slot, most, utc_day(now))
        if left >= 0:
            return left
        raise exhausted(client, most, until_midnight_s(now))

    def left(self, slot: int, most: int) -> tuple[int, float]:
        """What is left of this day's quota, and the seconds until the next day; takes nothing."""
        now = self._now()
        return max(0, most - self.shared.used(slot, utc_day(now))), until_midnight_s(now)


def exhausted(client: str, most: int, wait_s: float) -> LimitError:
    """The client has had its predictions of this day."""
    return LimitError(
        "quota_exhausted",
        f"The client `{client}` has used up its quota of {most} predictions for this UTC day.",
        retry_after_s=wait_s,
        field="quota",
        limit=most,
        remaining=0,
        reset_s=math.ceil(wait_s),
    )


class QuotaKeeper:
    """Finds what changed since it was kept last, in this process. Not safe for threads; may run off the loop."""

    def __init__(self, shared: SharedQuota) -> None:
        self._shared = shared
        self._kept: dict[tuple[str, int], int] = {}

    def changed(self, clients: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Client id, day and count of what is not kept yet, for clients by their slots."""
        by_slot = {slot: client_id for client_id, slot in clients.items()}
        counts = self._shared.counts(by_slot)
        found = [(by_slot[use.slot], use.day, use.count) for use in counts]
        held = self._kept
        self._kept = {use[:2]: held[use[:2]] for use in found if use[:2] in held}  # the rest is overwritten, or gone
        return [use for use in found if self._kept.get(use[:2]) != use[2]]

    def kept(self, changed: Iterable[tuple[str, int, int]]) -> None:
        """These were stored."""
        for client_id, day, count in changed:
            self._kept[client_id, day] = count
