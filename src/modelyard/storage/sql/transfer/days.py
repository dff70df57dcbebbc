"""Days of the prediction log in a target that keeps days apart: made before records of them come. A day whose records
lie among those of no day cannot be made any more, and looking through those takes longer the more they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, func, select

from modelyard.core.lease import Fence
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence

MOST_DAYS = 400
"""A year, and some: each costs the plan of every query a little. What is older lies together."""

_AT = schema.predictions.c.at


def make_days(source: Connection, target: Database, fence: Fence) -> None:
    """Makes the newest MOST_DAYS days of which the source has records, in a target without records of theirs."""
    with target.write(holds_appends=True) as connection:
        check_fence(connection, fence)
        dialects.make_past_days(connection, list(_newest(source)))


def _newest(source: Connection) -> Iterator[date]:
    """The days of which there are records, by leaps along the time."""
    at = source.scalar(select(func.max(_AT)))
    for _ in range(MOST_DAYS):
        if at is None:
            return
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).date()
        yield day
        begins_us = (day - date(1970, 1, 1)).days * 86_400_000_000
        at = source.scalar(select(func.max(_AT)).where(begins_us > _AT))
