"""Minutes of the log that changed. Whoever changes it notes them in its own transaction; whoever rolls them up takes
the notes first, in a transaction that no change runs beside, and looks at the log afterwards: a change is seen by that
look, or leaves a note of its own."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, and_, delete, func, select

from modelyard.analytics.cells import DAY_S, MINUTE_S
from modelyard.storage.sql import dialects, schema

_N = schema.pending_rollups.c
_MINUTE_US = MINUTE_S * 1_000_000
NEW, TAKEN = 0, 1


def note_changes(connection: Connection, moments_us: Iterable[int]) -> None:
    """The log changed at these times, in UNIX microseconds."""
    minutes = {at // _MINUTE_US * MINUTE_S for at in moments_us}
    _note(connection, sorted(minutes), NEW)


def waiting_before(connection: Connection, end: int) -> int:
    """How many minutes from before `end` wait."""
    return int(connection.execute(select(func.count(_N.start.distinct())).where(_N.start < end)).scalar_one())


def waiting_between(connection: Connection, low: int, high: int) -> int:
    """How many minutes wait in [low, high)."""
    inside = and_(_N.start >= low, _N.start < high)
    return int(connection.execute(select(func.count(_N.start.distinct())).where(inside)).scalar_one())


def first_since(connection: Connection, start: int) -> int | None:
    """The first minute from `start` on that waits."""
    first: int | None = connection.scalar(select(func.min(_N.start)).where(_N.start >= start))
    return first


def take_newest(connection: Connection, end: int, most: int) -> list[int]:
    """Takes the newest minutes that wait before `end`, at most so many and of one day; in a transaction beside which
    nothing is appended."""
    wanted = select(_N.start).where(_N.start < end).distinct().order_by(_N.start.desc()).limit(most)
    found = [int(start) for (start,) in connection.execute(wanted)]
    minutes = [start for start in found if start // DAY_S == found[0] // DAY_S]
    if minutes:
        inside = and_(_N.start >= minutes[-1], _N.start <= minutes[0])
        connection.execute(delete(schema.pending_rollups).where(inside, _N.taken == NEW))
        _note(connection, minutes, TAKEN)
    return minutes


def give_back(connection: Connection, minutes: Iterable[int]) -> None:
    """They are rolled up; what changed since waits still."""
    connection.execute(delete(schema.pending_rollups).where(_N.start.in_(tuple(minutes)), _N.taken == TAKEN))


def _note(connection: Connection, minutes: Iterable[int], taken: int) -> None:
    rows = [{"start": minute, "taken": taken} for minute in minutes]
    if rows:
        connection.execute(dialects.insert_new(connection, schema.pending_rollups), rows)
