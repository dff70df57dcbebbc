"""A filter of the prediction log as SQL: which table leads, and what must hold.

Usually the records lead. A filter by outcome lets the outcomes lead, which know when their prediction was: otherwise
a page of the few that have one would pass over all the newer ones that have none yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, case, exists, func, or_, select

from modelyard.journal.ports import HAS_OUTCOME, NO_OUTCOME, RecordFilter
from modelyard.storage.prediction_row import microseconds, status_range
from modelyard.storage.sql import schema

_P = schema.predictions.c
_O = schema.outcomes.c
_FIRST_FAILURE = 400

ITEMS = case((_P.rows > 0, _P.rows), (_P.status < _FIRST_FAILURE, 1), else_=0)
"""How many items a record has (journal.ports.items_of)."""


@dataclass(frozen=True)
class Source:
    """Where records are read from, the columns of their order, and the conditions."""

    table: FromClause
    at: ColumnElement[Any]
    id: ColumnElement[Any]
    conditions: tuple[ColumnElement[bool], ...]

    def before(self, at: int, prediction_id: str) -> ColumnElement[bool]:
        """What comes after this place, newest first."""
        return and_(self.at <= at, or_(self.at < at, self.id < prediction_id))

    def behind(self, at: int, prediction_id: str) -> ColumnElement[bool]:
        """What comes after this place, oldest first."""
        return and_(self.at >= at, or_(self.at > at, self.id > prediction_id))


def source_of(wanted: RecordFilter) -> Source:
    """Each matching record once."""
    if wanted.outcome in (None, NO_OUTCOME) or wanted.subject is not None:
        return Source(schema.predictions, _P.at, _P.id, (*_conditions(wanted, _P.at), *_outcome_conditions(wanted)))
    joined = schema.outcomes.join(schema.predictions, _O.prediction_id == _P.id)
    earlier = schema.outcomes.alias("earlier")
    lower = exists(
        select(earlier.c.item).where(
            earlier.c.prediction_id == _O.prediction_id,
            earlier.c.item < _O.item,
            earlier.c.current == 1,
            *_value(wanted.outcome, earlier.c.value_key),
        )
    )
    conditions = (schema.CURRENT, *_value(wanted.outcome, _O.value_key), ~lower, *_conditions(wanted, _O.prediction_at))
    return Source(joined, _O.prediction_at, _O.prediction_id, conditions)


def item_count(wanted: RecordFilter) -> Any:
    """SELECT how many items match."""
    if wanted.outcome is None:
        return select(func.coalesce(func.sum(ITEMS), 0)).select_from(schema.predictions).where(*_all(wanted))
    if wanted.outcome == NO_OUTCOME:
        missing = func.coalesce(func.sum(ITEMS - _given()), 0)
        return select(missing).select_from(schema.predictions).where(*_all(wanted))
    joined = schema.outcomes.join(schema.predictions, _O.prediction_id == _P.id)
    conditions = (schema.CURRENT, *_value(wanted.outcome, _O.value_key), *_conditions(wanted, _O.prediction_at))
    return select(func.count()).select_from(joined).where(*conditions)


def _all(wanted: RecordFilter) -> tuple[ColumnElement[bool], ...]:
    return (*_conditions(wanted, _P.at), *_outcome_conditions(wanted))


def _given() -> Any:
    """How many items of a record have an outcome."""
    mine = (_O.prediction_id == _P.id, schema.CURRENT)
    count = select(func.count()).select_from(schema.outcomes).where(*mine)
    return count.correlate(schema.predictions).scalar_subquery()


def _outcome_conditions(wanted: RecordFilter) -> tuple[ColumnElement[bool], ...]:
    if wanted.outcome is None:
        return ()
    if wanted.outcome == NO_OUTCOME:
        return (_given() < ITEMS,)
    mine = (_O.prediction_id == _P.id, schema.CURRENT, *_value(wanted.outcome, _O.value_key))
    return (exists(select(_O.item).where(*mine).correlate(schema.predictions)),)


def _value(outcome: str | None, key: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
    return () if outcome in (None, HAS_OUTCOME) else (key == str(outcome)[1:],)


def _conditions(wanted: RecordFilter, at: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    names = (
        (_P.model, wanted.model),
        (_P.version, wanted.version),
        (_P.client, wanted.client),
        (_P.endpoint, wanted.endpoint),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in names if value is not None]
    if wanted.subject is not None:
        conditions += [_P.subject == wanted.subject, schema.HAS_SUBJECT]
    if wanted.status is not None:
        low, high = status_range(wanted.status)
        conditions.append(_P.status == low if low == high else and_(_P.status >= low, _P.status <= high))
        if low >= _FIRST_FAILURE:
            conditions.append(schema.FAILED)
    if wanted.items:
        conditions.append(or_(_P.rows > 0, _P.status < _FIRST_FAILURE))
    return conditions + within(wanted, at)


def within(wanted: RecordFilter, at: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """The time that is asked for."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        conditions.append(at >= microseconds(wanted.since, "since"))
    if wanted.until is not None:
        conditions.append(at < microseconds(wanted.until, "until"))
    return conditions
