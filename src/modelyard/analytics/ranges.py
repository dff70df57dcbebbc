"""From when to when: whole minutes of the last day, whole hours of before; and which figures cover a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from modelyard.analytics.cells import DAY_S, GRAINS, HOUR_S, MINUTE_S

MINUTES_KEPT_S = DAY_S
"""Figures by the minute are asked for so long."""
SPARE_S = 2 * HOUR_S
"""And kept this much longer, so that none is missed that was asked for a moment ago."""
OPEN_S = 900
"""Requests of so long are counted in the log itself until their minute is rolled up; older ones wait for that."""
_END_OF_TIME_S = 32_503_680_000
"""The year 3000."""


def floor(at: float, step: int) -> int:
    """The last whole step before or at a time."""
    return math.floor(at / step) * step


def ceil(at: float, step: int) -> int:
    """The first whole step after or at a time."""
    return math.ceil(at / step) * step


def minutes_from(now: float) -> int:
    """From this hour on figures are asked for by the minute."""
    return floor(now - MINUTES_KEPT_S, HOUR_S)


def rounded(since: float, until: float, now: float) -> tuple[int, int]:
    """The time that is counted: all of what was asked for, and what belongs to the same minutes or hours."""
    since, until = (min(max(at, 0.0), _END_OF_TIME_S) for at in (since, until))
    fine = minutes_from(now)
    low = floor(since, MINUTE_S if since >= fine else HOUR_S)
    return low, max(low, ceil(until, MINUTE_S if until > fine else HOUR_S))


def cover(low: int, high: int, coarsest: int = DAY_S) -> Iterator[tuple[int, int, int]]:
    """The fewest pieces (grain, from, to) that make up [low, high), which begins and ends with whole minutes; each a
    row of grains of at most `coarsest`."""
    if low >= high:
        return
    grain = max(grain for grain in GRAINS if grain <= coarsest)
    first, last = ceil(low, grain), floor(high, grain)
    finer = max((other for other in GRAINS if other < grain), default=0)
    if first >= last:
        yield from cover(low, high, finer)
        return
    if finer:
        yield from cover(low, first, finer)
    yield grain, first, last
    if finer:
        yield from cover(last, high, finer)
