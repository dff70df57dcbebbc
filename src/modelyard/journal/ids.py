"""Prediction ids: unique over workers, restarts and hosts without asking anybody, and in the order of time, so that a
database can tell from an id in which of its daily partitions a record lies."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from itertools import count

MARK = "p"
"""What ids begin with; those of programs before this one are hexadecimal digits alone."""
STEP_S = 16
"""An id tells the time in so many seconds: seven digits reach until 2106."""
_COUNTED = 2**24


def new_epoch(randomness: Callable[[int], bytes] = secrets.token_bytes) -> int:
    """64 random bits that name one life of one worker process."""
    return int.from_bytes(randomness(8))


def first_id(at_s: float) -> str:
    """Not greater than any id that is made at this time (UNIX seconds) or later; greater than those made STEP_S or
    more before."""
    return f"{MARK}{max(0, int(at_s)) // STEP_S:07x}"


def spool_name_part(prediction_id: str) -> tuple[int, str]:
    """Where the names of the spool files of its worker have what, as far as an id tells."""
    return (4, prediction_id[8:20]) if prediction_id.startswith(MARK) else (0, prediction_id[:16])


class PredictionIds:
    """26 characters each: the time, 48 bits of the epoch, and a counter, in hexadecimal digits behind MARK. They sort
    by age within an epoch, but for the turn of the counter once in 2²⁴ ids. A clock that is set back does not set them
    back. Two of n lives share their 48 bits with a probability of about n² / 2⁴⁹, and an id only if they also share the
    moment and the count; the drain would notice (same id, other payload)."""

    __slots__ = ("_count", "_epoch", "_now", "_prefix", "_until_s", "epoch")

    def __init__(self, epoch: int, now: Callable[[], float] = time.time) -> None:
        self.epoch = epoch
        self._epoch = f"{epoch % 2**48:012x}"
        self._now = now
        self._until_s = -math.inf
        self._prefix = ""
        self._count = count().__next__

    def next(self) -> str:
        """The next id."""
        if (now := self._now()) >= self._until_s:
            self._tell_time(now)
        return f"{self._prefix}{self._count() % _COUNTED:06x}"

    def _tell_time(self, now: float) -> None:
        step = int(now) // STEP_S
        self._until_s = (step + 1) * STEP_S
        self._prefix = first_id(step * STEP_S) + self._epoch
