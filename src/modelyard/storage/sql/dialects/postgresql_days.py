"""The prediction log's daily partitions in PostgreSQL, by the time that ids begin with.

`predictions_before` has what programs stored whose ids did not tell the time, `predictions_strays` what belongs to no
day that was made in time. A partition is made while its day lies ahead, because making one looks through the strays.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import msgspec
from sqlalchemy import Connection, text

from modelyard.journal.ids import first_id

AHEAD_DAYS = 7
"""So long records go to a day of their own though nobody makes new ones."""
BEFORE, STRAYS = "predictions_before", "predictions_strays"
_NAME = re.compile(r"predictions_(\d{4})_(\d{2})_(\d{2})")
_PARTITIONS = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'predictions'::regclass ORDER BY c.relname"
)
_IS_STRAY = text("SELECT 1 FROM predictions_strays WHERE id >= :first AND id < :end LIMIT 1")


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


def days(connection: Connection) -> list[Day]:
    """Those that there are, oldest first."""
    found = map(_NAME.fullmatch, connection.scalars(_PARTITIONS))
    return [day_of(date(int(one[1]), int(one[2]), int(one[3]))) for one in found if one]


def make_days(connection: Connection, now_s: float) -> None:
    """Makes today's and those of the AHEAD_DAYS that follow, where they are missing. A day that has begun among the
    strays stays there: moving it would take the time that its records take."""
    known = {day.name for day in days(connection)}
    today = datetime.fromtimestamp(now_s, UTC).date()
    for number in range(AHEAD_DAYS + 1):
        day = day_of(today + timedelta(days=number))
        if day.name in known or connection.execute(_IS_STRAY, {"first": day.first, "end": day.end}).first() is not None:
            continue
        bounds = f"FROM ('{day.first}') TO ('{day.end}')"
        connection.exec_driver_sql(f"CREATE TABLE {day.name} PARTITION OF predictions FOR VALUES {bounds}")


def drop_day(connection: Connection, day: Day) -> None:
    """Takes the day's records away, all at once; waits for those who read them."""
    assert _NAME.fullmatch(day.name), "a name of ours"
    connection.exec_driver_sql(f"DROP TABLE {day.name}")
