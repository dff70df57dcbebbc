"""Reading a table in the order of its key, a page at a time, and the sum over what was read.

A row's bytes are the MessagePack of its values in the order of the columns, so that they are the same whatever
database it came from. A NUL in a text counts as U+FFFD, which is what PostgreSQL keeps in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Column, ColumnElement, Select, Table, and_, false, or_, select

from modelyard.storage.sql.transfer.tables import key_of

FIRST_ROWS = 64
MOST_ROWS = 2000
PAGE_BYTES = 8 * 1024 * 1024
"""What a page should hold: its rows are as many as the page before lets expect."""

Fetch = Callable[[Select[Any]], Sequence[Sequence[Any]]]
"""Runs a query and gives all its rows."""


class Entry(NamedTuple):
    """One row: its key, its values in the order of the columns, its bytes."""

    key: tuple[Any, ...]
    values: tuple[Any, ...]
    content: bytes


class Sum(msgspec.Struct, frozen=True):
    """What a table holds: how many rows, and SHA-256 over their bytes in the order of their keys."""

    rows: int
    sha256: str


class Summing:
    """The sum over rows that are told in order."""

    def __init__(self) -> None:
        self._rows = 0
        self._hash = hashlib.sha256()

    def add(self, entry: Entry) -> None:
        """The next row."""
        self._rows += 1
        self._hash.update(entry.content)

    def sum(self) -> Sum:
        """The sum so far."""
        return Sum(self._rows, self._hash.hexdigest())


def ordered(table: Table, fetch: Fetch) -> Iterator[Entry]:
    """All rows of a table in the order of its key. Each page is one statement that takes up behind the last one, so
    none runs for long, and what is written before a page's place does not disturb it."""
    keys = key_of(table)
    places = [list(table.columns).index(column) for column in keys]
    limit, behind = FIRST_ROWS, None
    while True:
        page = select(*table.columns).order_by(*keys).limit(limit)
        rows = fetch(page if behind is None else page.where(_behind(keys, behind)))
        entries = [_entry(tuple(row), places) for row in rows]
        yield from entries
        if len(entries) < limit:
            return
        behind = entries[-1].key
        limit = _following(sum(len(entry.content) for entry in entries), limit)


def keys_of(table: Table, fetch: Fetch) -> Iterator[tuple[Any, ...]]:
    """The keys of all rows, in order."""
    keys, behind = key_of(table), None
    while True:
        page = select(*keys).order_by(*keys).limit(MOST_ROWS)
        rows = fetch(page if behind is None else page.where(_behind(keys, behind)))
        yield from map(tuple, rows)
        if len(rows) < MOST_ROWS:
            return
        behind = tuple(rows[-1])


def _entry(values: tuple[Any, ...], places: Sequence[int]) -> Entry:
    shown = values
    if any(type(value) is str and "\0" in value for value in values):
        shown = tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values)
    return Entry(tuple(values[place] for place in places), values, msgspec.msgpack.encode(shown))


def _behind(keys: Sequence[Column[Any]], place: Sequence[Any]) -> ColumnElement[bool]:
    """Rows behind this key: spelled so that an index over the key is entered at its first column."""
    wanted: ColumnElement[bool] = false()
    for column, value in zip(reversed(keys), reversed(place), strict=True):
        wanted = or_(column > value, and_(column == value, wanted))
    return and_(keys[0] >= place[0], wanted)


def _following(size_bytes: int, rows: int) -> int:
    """How many rows the next page should have, at most twice as many as this one."""
    fitting = PAGE_BYTES * rows // max(size_bytes, 1)
    return max(1, min(fitting, rows * 2, MOST_ROWS))
