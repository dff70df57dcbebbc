"""Reading the prediction log. Pages go by key, so page 1000 costs what page 1 costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.ports import RecordFilter, RecordPage
from modelyard.storage import refusals
from modelyard.storage.prediction_row import AT, READ_COLUMNS, to_record
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.records.outcomes import latest_outcomes
from modelyard.storage.sql.records.query import item_count, source_of
from modelyard.storage.sql.records.streams import rows_behind, streams

_P = schema.predictions.c
_ROW = tuple(_P[name] for name in READ_COLUMNS)


class SqlRecordLog:
    """journal.ports.RecordLog over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        place = None if cursor is None else decode_cursor(cursor)
        with self._database.read() as connection:
            rows = rows_behind(connection, filter, place, limit + 1, "newest")
            records = _records(connection, rows[:limit])
        following = encode_cursor(rows[limit - 1][AT], rows[limit - 1][0]) if len(rows) > limit else None
        return RecordPage(tuple(records), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        with self._database.survey() as connection:
            return sum(_count(connection, stream.wanted) for stream in streams(connection, filter))

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        with self._database.read() as connection:
            row = connection.execute(select(*_ROW).where(_P.id == prediction_id)).one_or_none()
            if row is None:
                raise refusals.prediction_not_found(prediction_id)
            return _records(connection, [row])[0]

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first. Every chunk is a transaction of its own: one long one would keep the WAL
        from being copied back, so records that arrive meanwhile may or may not be in."""
        place = None
        while True:
            with self._database.read() as connection:
                rows = rows_behind(connection, filter, place, chunk, "oldest")
                records = _records(connection, rows)
            if records:
                yield records
            if len(rows) < chunk:
                return
            place = (rows[-1][AT], rows[-1][0])


def _count(connection: Connection, wanted: RecordFilter) -> int:
    if wanted.items:
        counted = item_count(wanted)
    else:
        source = source_of(wanted)
        counted = select(func.count()).select_from(source.table).where(*source.conditions)
    return int(connection.execute(counted).scalar_one())


def _records(connection: Connection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    outcomes = latest_outcomes(connection, [row[0] for row in rows])
    return [to_record(row, outcomes.get(row[0], ())) for row in rows]
