"""A clock that turns only when told."""

from __future__ import annotations


class FakeClock:
    """core.clock.Clock in a test's hands: `advance` turns both clocks, `jump_to` only the wall clock (promise P10)."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Seconds; grows by `advance` alone."""
        return self._monotonic

    def now(self) -> float:
        """UNIX seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Lets time pass; ValueError for a negative span."""
        if seconds < 0:
            raise ValueError("time does not run backwards; jump_to moves the wall clock")
        self._monotonic += seconds
        self._now += seconds

    def jump_to(self, now: float) -> None:
        """Sets the wall clock, as an administrator or a time server would."""
        self._now = now
