"""What time it is for all hosts that count together: the service's, as near as its answers tell it.

Each answer carries a `Date` in whole seconds. An answer of second D that was asked for at a and was here at b says that
the service's clock stood between D and D + 1 at some moment between a and b; so it bounds that clock in terms of this
host's monotonic one. Bounds of several answers hold together and leave less and less between them, down to about a
round trip. This host's own clock is taken within these bounds: one that is kept well (within milliseconds on AWS) is
never touched, one that is wrong does no more harm than they leave. (Intersection of intervals: K. Marzullo and S.
Owicki, "Maintaining the Time in a Distributed System", 1983.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from modelyard.core.clock import Clock

DRIFT = 2e-4
"""By so much two clocks may run apart; crystals do by less than half of it."""
JUMP_S = 1.0
"""When this host's two clocks moved apart by more since the last answer, one was set, or stood still as all did: then
nothing that was known holds."""


class ServiceTime:
    """The time by which a worker counts; for one thread."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self._now = clock.now
        self._ahead = (-math.inf, math.inf)
        """Bounds of the service's clock minus the monotonic one."""
        self._heard_s = -math.inf
        self._apart_s = math.inf

    def is_known(self) -> bool:
        """Whether an answer was heard, and both clocks went on together since."""
        return abs(self._now() - self.monotonic() - self._apart_s) <= JUMP_S

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        at = self.monotonic()
        low, high = self._bounds(at)
        now = min(max(self._now(), at + low), at + high)
        whole = math.floor(now)
        return whole * 10**9 + round((now - whole) * 1e9)

    def heard(self, date_s: float, asked_s: float, answered_s: float) -> None:
        """An answer of this date, asked for and answered at these monotonic times."""
        low, high = date_s - answered_s, date_s + 1 - asked_s
        if self.is_known():
            known = self._bounds(answered_s)
            within = max(low, known[0]), min(high, known[1])
            if within[0] <= within[1]:  # else what the service says now counts
                low, high = within
        self._ahead = low, high
        self._heard_s = answered_s
        self._apart_s = self._now() - self.monotonic()

    def _bounds(self, at: float) -> tuple[float, float]:
        """As they are at this time: what was heard long ago holds no longer as closely."""
        drift_s = DRIFT * max(0.0, at - self._heard_s)
        return self._ahead[0] - drift_s, self._ahead[1] + drift_s


def date_of(answer: Mapping[str, Any]) -> float | None:
    """The date of an answer, or of a refusal; None where it has none."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if said is None else parsedate_to_datetime(said).timestamp()
    except ValueError:
        return None
