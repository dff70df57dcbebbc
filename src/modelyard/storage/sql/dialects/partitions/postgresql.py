"""The prediction log's daily partitions in PostgreSQL, by the time that ids begin with.

`predictions_before` has what programs stored whose ids did not tell the time, `predictions_strays` what belongs to no
day that was made in time. A partition is made while its day lies ahead, because making one looks through the strays.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text

from modelyard.storage.sql.dialects.partitions.day import Day, day_named, days_ahead

BEFORE, STRAYS = "predictions_before", "predictions_strays"
_PARTITIONS = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'predictions'::regclass ORDER BY c.relname"
)
_IS_STRAY = text("SELECT 1 FROM predictions_strays WHERE id >= :first AND id < :end LIMIT 1")


def days(connection: Connection) -> list[Day]:
    """Those that there are, oldest first."""
    return [day for day in map(day_named, connection.scalars(_PARTITIONS)) if day is not None]


def make_days(connection: Connection, now_s: float) -> None:
    """Makes today's and those of the AHEAD_DAYS that follow, where they are missing. A day that has begun among the
    strays stays there: moving it would take the time that its records take."""
    make(connection, days_ahead(now_s))


def make(connection: Connection, wanted: Iterable[Day]) -> None:
    """Makes those of these days that are missing and have not begun among the strays."""
    known = {day.name for day in days(connection)}
    for day in wanted:
        if day.name in known or connection.execute(_IS_STRAY, {"first": day.first, "end": day.end}).first() is not None:
            continue
        bounds = f"FROM ('{day.first}') TO ('{day.end}')"
        connection.exec_driver_sql(f"CREATE TABLE {day.name} PARTITION OF predictions FOR VALUES {bounds}")


def drop_day(connection: Connection, day: Day) -> None:
    """Takes the day's records away, all at once; waits for those who read them."""
    assert day_named(day.name) is not None, "a name of ours"
    connection.exec_driver_sql(f"DROP TABLE {day.name}")
