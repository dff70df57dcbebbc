"""Time as an argument: the one place that reads the machine's clocks."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. `monotonic` for durations and deadlines, `now` for stamps only (promise P10)."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes backwards."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC, by the wall clock; may jump."""


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)
