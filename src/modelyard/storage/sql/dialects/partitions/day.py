"""A day of the prediction log, known by the time that ids begin with."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import msgspec

from modelyard.journal.ids import first_id

AHEAD_DAYS = 7
"""So long records go to a day of their own though nobody makes new ones."""
_NAME = re.compile(r"predictions_(\d{4})_(\d{2})_(\d{2})")


class Day(msgspec.Struct, frozen=True):
    """A day (UTC): the partition's name, the ids in it (from `first` to before `end`), and when it is over (UNIX
    seconds)."""

    name: str
    first: str
    end: str
    over_s: float


def day_of(when: date) -> Day:
    """The partition of a day."""
    begins = datetime(when.year, when.month, when.day, tzinfo=UTC)
    ends = begins + timedelta(days=1)
    name = f"predictions_{begins:%Y_%m_%d}"
    return Day(name, first_id(begins.timestamp()), first_id(ends.timestamp()), ends.timestamp())


def day_named(name: str) -> Day | None:
    """That of a partition; None if it holds no day."""
    found = _NAME.fullmatch(name)
    return None if found is None else day_of(date(int(found[1]), int(found[2]), int(found[3])))


def days_ahead(now_s: float) -> list[Day]:
    """Today and the AHEAD_DAYS that follow."""
    today = datetime.fromtimestamp(now_s, UTC).date()
    return [day_of(today + timedelta(days=number)) for number in range(AHEAD_DAYS + 1)]
