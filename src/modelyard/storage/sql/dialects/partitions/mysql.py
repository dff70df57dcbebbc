"""The prediction log's daily partitions in MySQL and MariaDB, by the time that ids begin with.

Ranges leave no gaps: a day holds all ids from the end of the day before it that is still there. `predictions_before`
has what programs stored whose ids did not tell the time, `predictions_strays` what lies behind the last day.

Dropping a partition commits itself, so a day leaves in two steps. Its certificate and its name in `leaving_days` are
written together; then it is dropped, and taken off the list. Nobody adds to a day on the list, nor changes anything
else beside it: whoever keeps appends out drops first what is on the list, and so does an append to such a day. A
process that dies in between leaves the list to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, func, insert, select, text

from modelyard.journal.ids import MARK, STEP_S, first_id
from modelyard.storage.sql.dialects.dialect import KIND, Kind
from modelyard.storage.sql.dialects.partitions.day import AHEAD_DAYS, Day, day_named, day_of, days_ahead

MOST_COPIED = 100_000
"""Records among the strays: making a day copies them, and appends wait meanwhile."""
MOST_DAYS_BACK = 400
"""How many days of a log that was not partitioned get partitions of their own."""
LEAVING = Table("leaving_days", MetaData(), Column("name", String(64), primary_key=True))
"""Days that are certified to be gone, and may not be yet."""

_BEFORE, _STRAYS = "predictions_before", "predictions_strays"
_BEHIND = f"PARTITION {_STRAYS} VALUES LESS THAN (MAXVALUE)"
_PARTITIONS = text(
    "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() "
    "AND table_name = 'predictions' AND partition_name IS NOT NULL ORDER BY partition_ordinal_position"
)
_FIRST_STRAYS = text("SELECT COUNT(*) FROM (SELECT 1 FROM predictions PARTITION (predictions_strays) LIMIT :most) some")
_APPENDS = "SELECT d.name FROM schema_revision r LEFT JOIN leaving_days d ON TRUE "
SHARED, ALONE = f"{_APPENDS} LOCK IN SHARE MODE", f"{_APPENDS} FOR UPDATE"
"""Taking the lock of appends, and in the same look behind it the names of the days that leave."""


def days(connection: Connection) -> list[Day]:
    """Those that there are, oldest first; none where the log is not partitioned yet."""
    return _days(connection.scalars(_PARTITIONS).all())


def _days(partitions: Sequence[str]) -> list[Day]:
    named = [day for day in map(day_named, partitions) if day is not None]
    ends = [MARK, *(day.end for day in named)]
    return [Day(day.name, first, day.end, day.over_s) for day, first in zip(named, ends, strict=False)]


def make_days(connection: Connection, now_s: float) -> None:
    """Makes today's and those of the AHEAD_DAYS that follow, as far as they lie behind the last that there is. What is
    among the strays is copied into the first of them; where that is too much, none is made, and all goes there."""
    partitions = connection.scalars(_PARTITIONS).all()
    end = max((day.end for day in _days(partitions)), default=MARK)
    wanted = [day for day in days_ahead(now_s) if day.end > end]
    if not partitions or not wanted:
        return
    with _reshaping(connection) as own:
        if own.execute(_FIRST_STRAYS, {"most": MOST_COPIED + 1}).scalar_one() > MOST_COPIED:
            return
        parts = ", ".join((*map(_definition, wanted), _BEHIND))
        own.exec_driver_sql(f"ALTER TABLE predictions REORGANIZE PARTITION {_STRAYS} INTO ({parts})")


def partition(connection: Connection, now_s: float) -> None:
    """Copies the log into partitions: a day each from its oldest record on, at most MOST_DAYS_BACK, and the AHEAD_DAYS
    that follow. Reads go on meanwhile, what writes into the log waits."""
    if connection.scalars(_PARTITIONS).first() is not None:
        return
    oldest_s = _oldest_s(connection, now_s)
    begins = datetime.fromtimestamp(oldest_s, UTC).date()
    count = (datetime.fromtimestamp(now_s, UTC).date() - begins).days + AHEAD_DAYS + 1
    made = [day_of(begins + timedelta(days=number)) for number in range(count)]
    before = f"PARTITION {_BEFORE} VALUES LESS THAN ('{MARK}')"
    parts = ", ".join((before, *map(_definition, made), _BEHIND))
    connection.exec_driver_sql(f"ALTER TABLE predictions PARTITION BY RANGE COLUMNS (id) ({parts})")


def drop_day(connection: Connection, day: Day) -> None:
    """Puts the day on the list: once this transaction is durable its records are to go, and nothing joins them."""
    connection.execute(insert(LEAVING).values(name=day.name))


def are_leaving(connection: Connection) -> bool:
    """Whether a day is on the list."""
    return connection.execute(select(LEAVING.c.name).limit(1)).first() is not None


def drop_leaving(connection: Connection) -> None:
    """Drops what is on the list and clears it, in a transaction that has the appends' lock alone and has not looked at
    the log: a drop waits for all that have."""
    listed = connection.scalars(select(LEAVING.c.name)).all()
    there = {day.name for day in days(connection)}
    if gone := [name for name in listed if name in there]:
        with _reshaping(connection) as own:
            own.exec_driver_sql(f"ALTER TABLE predictions DROP PARTITION {', '.join(gone)}")
    connection.execute(delete(LEAVING).where(LEAVING.c.name.in_(listed)))


def drop_if_joined(connection: Connection, leaving: Sequence[str], first: str, last: str) -> None:
    """Before records with ids from `first` to `last` are added: drops the days that leave, if one might lie among
    them. What is added then goes to the day behind. Refused as locked where others hold the lock of appends too."""
    known = {day.name: day for day in days(connection)}
    if any(day.first <= last and first < day.end for name in leaving if (day := known.get(name))):
        # Not in the queue: who waits there for the lock alone would be in a circle with us, who share it.
        connection.exec_driver_sql(f"{ALONE} NOWAIT")
        drop_leaving(connection)


@contextmanager
def _reshaping(connection: Connection) -> Iterator[Connection]:
    """A connection whose statements each commit themselves, beside a transaction that keeps others out."""
    with connection.engine.connect() as own:
        own.execution_options(**{KIND: Kind.RESHAPE})
        yield own


def _definition(day: Day) -> str:
    return f"PARTITION {day.name} VALUES LESS THAN ('{day.end}')"


def _oldest_s(connection: Connection, now_s: float) -> float:
    """When the oldest record's id was made that tells the time, as far as it matters."""
    from modelyard.storage.sql.schema import predictions

    earliest_s = now_s - MOST_DAYS_BACK * 86_400
    inside = predictions.c.id >= first_id(earliest_s), predictions.c.id < first_id(now_s)
    found: Any = connection.scalar(select(func.min(predictions.c.id)).where(*inside))
    try:
        return now_s if found is None else max(earliest_s, int(found[1:8], 16) * STEP_S)
    except ValueError:  # an id that only looks like one of ours
        return now_s
