"""Reading the prediction log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.ports import RecordFilter, RecordPage
from modelyard.storage import refusals
from modelyard.storage.dynamodb.records.layout import at_of, place
from modelyard.storage.dynamodb.records.search import Found, Search
from modelyard.storage.prediction_row import AT, READ_COLUMNS, matching_items, to_record

MOST_READS = 100
"""Queries of one page, each of up to a thousand records. A page whose filter matched too few by then ends short, with a
cursor."""
_LAST_ID = "\U0010ffff"
"""Sorts behind every id."""


class DynamoRecordLog:
    """journal.ports.RecordLog over the table of predictions. Pages come from the index, which is a moment behind."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        behind = None if cursor is None else place(*decode_cursor(cursor))
        matching, reading = self._search.newest_first(filter, behind, limit, MOST_READS)
        found = list(islice(matching, limit + 1))
        following = None
        if len(found) > limit:
            following = encode_cursor(found[limit - 1].row[AT], found[limit - 1].row[0])
        elif reading is not None and reading.stopped_at is not None:
            following = _between(reading.stopped_at)
        return RecordPage(tuple(map(_record, found[:limit])), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        if filter.items:
            found = self._search.oldest_first(filter, _ALL)
            return sum(matching_items(one.row, filter.outcome, one.outcomes) for one in found)
        if filter.outcome is None and filter.subject is None:
            return self._search.count(filter)
        return sum(1 for _ in self._search.oldest_first(filter, _ALL))

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        items = self._search.get([prediction_id])
        if not items:
            raise refusals.prediction_not_found(prediction_id)
        return _record(self._search.shown(list(items.values()))[0])

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first. Records that arrive meanwhile may or may not be in."""
        found = self._search.oldest_first(filter, chunk)
        while several := list(islice(found, chunk)):
            yield list(map(_record, several))


_ALL = 1000
"""Size of a page where all is read."""


def _between(where: str) -> str:
    """The cursor of a place at which a page ended, between two records."""
    at_us, name = at_of(where), where.partition("#")[2]
    return encode_cursor(at_us, name) if name else encode_cursor(at_us - 1, _LAST_ID)


def _record(found: Found) -> dict[str, Any]:
    return to_record(found.row[: len(READ_COLUMNS)], found.outcomes)
