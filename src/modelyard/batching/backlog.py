"""How long would one more request wait for a version that is too slow for the loop? (promise P4)"""

from __future__ import annotations

from modelyard.core.types import LoadProfile

LEAST_ROWS = 8
"""So many rows may always be with a version: one that takes a second a row must still serve a few callers at once."""
LEARN = 0.2
"""Share of the newest run in what is known of the version's speed."""
MOST_SLOWER = 4.0
"""One run counts as at most so many times slower than the last ones: a hiccup is no new speed."""


class Backlog:
    """The rows that wait and run, and how many may: as many as are done within `max_wait_s`.

    A run of n rows takes `slowness * (once_s + n * row_s)`: a line through what the load check measured with 1 and 32
    rows, times what the last runs took in its place. `once_s` is spread over the rows of the largest batch as well, so
    that more than one batch is not taken for one. Rows in a run count in full until it ends.
    """

    __slots__ = ("_once_s", "_row_s", "_slowness", "max_wait_s", "room", "running", "waiting")

    def __init__(self, profile: LoadProfile, max_rows: int, max_wait_s: float) -> None:
        row_us = max(0.0, (profile.run_us_32 - profile.run_us_1) / 31) if profile.batched else profile.run_us_1
        once_us = max(0.0, profile.run_us_1 - row_us)
        self._once_s = once_us / 1e6
        self._row_s = max(1e-9, (row_us + once_us / max_rows) / 1e6)
        self._slowness = 1.0
        self.max_wait_s = max_wait_s
        self.waiting = self.running = 0
        self.room = self._room()

    def _room(self) -> int:
        return max(LEAST_ROWS, int((self.max_wait_s / self._slowness - self._once_s) / self._row_s))

    def expected_s(self, rows: int) -> float:
        """How long a run of so many rows takes these days."""
        return self._slowness * (self._once_s + rows * self._row_s)

    def has_room(self, rows: int) -> bool:
        """Whether so many more would be done in time; whoever comes first always has."""
        there = self.waiting + self.running
        return there == 0 or there + rows <= self.room

    def note_run(self, took_s: float, rows: int) -> None:
        """Learns from a run of so many rows, from its start in the loop to its return there."""
        ratio = took_s / (self._once_s + rows * self._row_s)
        self._slowness += LEARN * (min(ratio, MOST_SLOWER * self._slowness) - self._slowness)
        self.room = self._room()
