"""Trying again, within bounds: how often, and how long in all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from modelyard.core.clock import Clock
from modelyard.storage.s3.refusals import TookTooLongError, is_transient

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

T = TypeVar("T")


class Retry:
    """The bounds of one operation, which may be many requests from several threads.

    Each request is tried `attempts` times at most; none begins later than `timeout_s` after the operation began.
    Pauses are those of "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), the full jitter: `chance`
    gives 0 to 1.
    """

    def __init__(
        self,
        attempts: int,
        timeout_s: float,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._attempts = attempts
        self._clock = clock
        self._deadline_s = clock.monotonic() + timeout_s
        self._chance = chance
        self._pause = pause

    def run(self, call: Callable[[], T]) -> T:
        """What `call` returns; its last error if it failed as often as it may, or in a way that will not pass."""
        for attempt in range(1, self._attempts + 1):
            self.check()
            try:
                return call()
            except Exception as error:
                if attempt == self._attempts or not is_transient(error):
                    raise
            self._pause(self._chance() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))
        raise AssertionError("there is at least one attempt")

    def check(self) -> None:
        """TookTooLongError if the time is over; asked between the blocks of a long answer too, since a server that
        dribbles never runs into a read timeout."""
        if self.left_s() <= 0:
            raise TookTooLongError

    def left_s(self) -> float:
        """How much time is left."""
        return self._deadline_s - self._clock.monotonic()
