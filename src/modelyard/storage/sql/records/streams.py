"""A filter by a model alone, or by a version alone, as several by both: one index by both serves all three.

An index costs every record that is stored, a page costs little. Which values the other name has in the log is found by
leaps along the index, not by a look at each record. Each value is a stream of records in the order of the index; no
record is in two of them, and a page is what comes first in all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, FromClause, Row, Select, func, select, true

from modelyard.journal.ports import NO_OUTCOME, RecordFilter
from modelyard.storage.prediction_row import AT, READ_COLUMNS
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.records.query import source_of, within

_P = schema.predictions.c
_ROW = tuple(_P[name] for name in READ_COLUMNS)
_ID = READ_COLUMNS.index("id")

Place = tuple[int, str]
"""When a record was (UNIX microseconds), and its id."""
Order = Literal["newest", "oldest"]
"""Which records come first."""


class Stream(msgspec.Struct, frozen=True):
    """Records by one filter. `first_at` (UNIX microseconds): none of them comes before; None where it is not known."""

    wanted: RecordFilter
    first_at: int | None = None


def rows_behind(
    connection: Connection, wanted: RecordFilter, place: Place | None, most: int, order: Order
) -> Sequence[Row[Any]]:
    """The first `most` records that match behind `place`, in this order, READ_COLUMNS of each."""
    if dialects.plans_each_day(connection) and _is_split(connection, wanted):
        return _rows_at_once(connection, wanted, place, most, order)
    found: list[Row[Any]] = []
    for stream in streams(connection, wanted, place, order):
        last = found[-1][AT] if len(found) == most else None
        if last is not None and stream.first_at is not None and _is_behind(stream.first_at, last, order):
            break
        found += _rows(connection, stream.wanted, place, most, order, last)
        found.sort(key=_place, reverse=order == "newest")
        del found[most:]
    return found


def _is_behind(at: int, last: int, order: Order) -> bool:
    return at < last if order == "newest" else at > last


def _rows(
    connection: Connection, wanted: RecordFilter, place: Place | None, most: int, order: Order, last: int | None
) -> Sequence[Row[Any]]:
    """Those of one stream, none behind `last`: others have enough that come before."""
    at = source_of(wanted).at
    enough = () if last is None else (at >= last if order == "newest" else at <= last,)
    return connection.execute(_page(wanted, place, most, order).where(*enough)).all()


def _page(wanted: RecordFilter, place: Place | None, most: int, order: Order) -> Select[Any]:
    source = source_of(wanted)
    statement = select(*_ROW).select_from(source.table).where(*source.conditions)
    if place is not None:
        statement = statement.where(source.before(*place) if order == "newest" else source.behind(*place))
    return statement.order_by(*_keys(source.at, source.id, order)).limit(most)


def _keys(at: ColumnElement[Any], one: ColumnElement[Any], order: Order) -> tuple[ColumnElement[Any], ...]:
    return (at.desc(), one.desc()) if order == "newest" else (at, one)


def _rows_at_once(
    connection: Connection, wanted: RecordFilter, place: Place | None, most: int, order: Order
) -> Sequence[Row[Any]]:
    """All streams in one statement: where a log lies in many partitions, planning one costs more than reading it."""
    values, free = _values(wanted.model), _P.version if wanted.version is None else _P.model
    each = _page(wanted, place, most, order).where(free == values.c.value).lateral("each")
    joined = values.join(each, true())
    return connection.execute(
        select(*(each.c[name] for name in READ_COLUMNS))
        .select_from(joined)
        .order_by(*_keys(each.c.at, each.c.id, order))
        .limit(most)
    ).all()


def _place(row: Row[Any]) -> Place:
    return row[AT], row[_ID]


def streams(
    connection: Connection, wanted: RecordFilter, place: Place | None = None, order: Order = "newest"
) -> Sequence[Stream]:
    """What has the records that match: those streams that have one at `place` or behind it, by their first."""
    if not _is_split(connection, wanted):
        return (Stream(wanted),)
    free = "version" if wanted.version is None else "model"
    conditions = within(wanted, _P.at)
    if place is not None:
        conditions.append(_P.at <= place[0] if order == "newest" else _P.at >= place[0])
    conditions.append(_P.model == wanted.model if free == "version" else _P.version == wanted.version)
    first = select(_P.at).where(*conditions).order_by(_P.at.desc() if order == "newest" else _P.at).limit(1)
    found = [(at, value) for value, at in _firsts(connection, wanted.model, first, _P[free]) if at is not None]
    found.sort(reverse=order == "newest")
    return [Stream(msgspec.structs.replace(wanted, **{free: value}), at) for at, value in found]


def _firsts(
    connection: Connection, model: str | None, first: Select[Any], free: Column[Any]
) -> Iterable[tuple[str, int | None]]:
    """What `first` finds for each of the other names."""
    if not dialects.leaps_in_subqueries(connection):
        return [(value, connection.scalar(first.where(free == value))) for value in _names(connection, model)]
    values = _values(model)
    each = first.where(free == values.c.value).correlate(values).scalar_subquery()
    return [(value, at) for value, at in connection.execute(select(values.c.value, each))]


def _is_split(connection: Connection, wanted: RecordFilter) -> bool:
    """Whether one of the two names is given, which has no index of its own, and nothing that has one."""
    led_otherwise = wanted.subject is not None or wanted.outcome not in (None, NO_OUTCOME)
    if led_otherwise or wanted.client is not None or wanted.endpoint is not None:
        return False
    if wanted.model is None:
        return wanted.version is not None
    return wanted.version is None and not dialects.plans_each_day(connection)


def other_names(connection: Connection, wanted: RecordFilter) -> tuple[str, Sequence[str]] | None:
    """Beside a condition on a model, which versions of it there are; beside one on a version, which models: so that
    the index leads to the time that is asked for. None where another index does."""
    if not _is_split(connection, wanted):
        return None
    return "version" if wanted.version is None else "model", _names(connection, wanted.model)


def _names(connection: Connection, model: str | None) -> Sequence[str]:
    """The versions of a model, or else the models, each once."""
    if dialects.leaps_in_subqueries(connection):
        return connection.scalars(select(_values(model).c.value)).all()
    column, conditions = _other(model)
    found: list[str] = []
    following = conditions
    while (value := connection.scalar(select(func.min(column)).where(*following))) is not None:
        found.append(value)
        following = (*conditions, column > value)
    return found


def _values(model: str | None) -> FromClause:
    """The same in a statement, as the column `value`."""
    column, conditions = _other(model)
    least = select(column).where(*conditions).order_by(column).limit(1)
    one = select(least.scalar_subquery().label("value")).cte("one", recursive=True)
    following = least.where(column > one.c.value).correlate(one).scalar_subquery()
    every = one.union_all(select(following).where(one.c.value.is_not(None)))
    return select(every.c.value).where(every.c.value.is_not(None)).subquery()


def _other(model: str | None) -> tuple[Column[Any], tuple[ColumnElement[bool], ...]]:
    return (_P.model, ()) if model is None else (_P.version, (_P.model == model,))
