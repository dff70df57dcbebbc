"""Figures of a time from the log itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import msgspec
import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
)

from modelyard.analytics.cells import Figures, fold
from modelyard.analytics.histogram import EXACT_BELOW, MOST, bin_of, packed
from modelyard.analytics.scores import Scores, tally
from modelyard.journal.ports import RecordFilter
from modelyard.storage.sql import schema
from modelyard.storage.sql.records.query import ITEMS
from modelyard.storage.sql.records.streams import other_names

Place = tuple[str, str, str, str]
"""Endpoint, model, version, client."""

_P = schema.predictions.c
_ANSWERED, _REFUSED, _FAILED, _NEITHER = 2, 4, 5, 0
_HASH, _PRIME, _MIXED = 1_000_003, 48_271, 65_537
"""Factors of a hash over the time of a request, small enough for 64 bits."""


def _bins() -> ColumnElement[int]:
    """The least value of the bin that a latency falls into (analytics.histogram.lower); whole numbers are all it
    needs, so that every database has it."""
    steps: list[tuple[ColumnElement[bool], ColumnElement[int]]] = [(_P.total_us < EXACT_BELOW, _P.total_us)]
    bound, step = EXACT_BELOW * 2, 2
    while bound <= MOST:
        steps.append((_P.total_us < bound, _P.total_us - _P.total_us % step))
        bound, step = bound * 2, step * 2
    return case(*steps, else_=MOST)


_KIND = case(
    (and_(_P.status >= 200, _P.status < 400), _ANSWERED),
    (and_(_P.status >= 400, _P.status < 500), _REFUSED),
    (_P.status >= 500, _FAILED),
    else_=_NEITHER,
)


def _between(start: ColumnElement[int]) -> ColumnElement[bool]:
    """Of [low_us, high_us), two parameters of the statement."""
    return and_(start >= bindparam("low_us", type_=BigInteger), start < bindparam("high_us", type_=BigInteger))


def _bounds(low: int, high: int) -> dict[str, int]:
    """Values of its parameters, from UNIX seconds."""
    return {"low_us": low * 1_000_000, "high_us": high * 1_000_000}


@cache
def _counting(filters: tuple[str, ...], beside: str | None) -> Select[Any]:
    """The question of `count_rows`, with one parameter for each of these names, and `others` for a list of values of
    the column `beside`: making it takes longer than asking."""
    among = () if beside is None else (_P[beside].in_(bindparam("others", expanding=True)),)
    one = (
        select(
            _P.endpoint, _P.model, _P.version, _P.client, _P.total_us, _P.request_bytes, _P.answer_bytes,
            _KIND.label("kind"), case((_KIND == _ANSWERED, _bins()), else_=-1).label("bin"), ITEMS.label("item_count"),
        )
        .where(_between(_P.at), *(_P[name] == bindparam(name) for name in filters), *among)
        .subquery()
    ).c  # fmt: skip
    names = (one.endpoint, one.model, one.version, one.client, one.kind, one.bin)
    sums = (one.item_count, one.total_us, one.request_bytes, one.answer_bytes)
    wanted = select(*names, func.count(), *(func.sum(value) for value in sums), func.max(one.total_us))
    return wanted.group_by(*names)


def count_rows(
    connection: Connection, low: int, high: int, names: Mapping[str, str | None] = MappingProxyType({})
) -> dict[Place, Figures]:
    """The figures of the requests of [low, high), in UNIX seconds, by endpoint, model, version and client; of those
    whose columns have the given values, where one is not None."""
    wanted = {name: value for name, value in names.items() if value is not None}
    beside, others = other_names(connection, msgspec.convert(wanted, RecordFilter)) or (None, ())
    values: dict[str, Any] = {**_bounds(low, high), **wanted, **({"others": others} if beside else {})}
    rows = connection.execute(_counting(tuple(sorted(wanted)), beside), values)
    return fold((tuple(row[:4]), _figures(*map(int, row[4:]))) for row in rows)


@cache
def _counting_up(filters: tuple[str, ...]) -> Select[Any]:
    some: Select[Any] = select(literal_column("1").label("one"))
    some = some.where(_between(_P.at), *(_P[name] == bindparam(name) for name in filters))
    return select(func.count()).select_from(some.limit(bindparam("most", type_=Integer)).subquery())


def count_up_to(connection: Connection, low: int, high: int, names: Mapping[str, str | None], most: int) -> int:
    """How many requests `count_rows` would look at, or `most` if there are more."""
    wanted = {name: value for name, value in names.items() if value is not None}
    values = {**_bounds(low, high), **wanted, "most": most}
    return int(connection.execute(_counting_up(tuple(sorted(wanted))), values).scalar_one())


def _figures(
    kind: int, least: int, count: int, items: int, total_us: int, request_bytes: int, answer_bytes: int, max_us: int
) -> Figures:
    answered = kind == _ANSWERED
    return Figures(
        requests=count, client_errors=count * (kind == _REFUSED), server_errors=count * (kind == _FAILED),
        items=items, answered=count * answered, total_us=total_us * answered, request_bytes=request_bytes,
        answer_bytes=answer_bytes, max_us=max_us * answered,
        latency=packed({bin_of(least): count}) if answered else b"",
    )  # fmt: skip


@cache
def _drawing(drawn: bool) -> Select[Any]:
    """The question of `sample_scores`: of all answers, or of those that are drawn."""
    mine = (_P.model == bindparam("model"), _P.version == bindparam("version"), _between(_P.at))
    wanted = select(_P.outputs, _P.rows).where(*mine, _P.status >= 200, _P.status < 400)
    return wanted.where(_P.at % _HASH * _PRIME % _MIXED < bindparam("share", type_=Integer)) if drawn else wanted


def sample_scores(
    connection: Connection, low: int, high: int, place: Place, answered: int, most: int
) -> dict[str, Scores]:
    """The scores of a version in [low, high), where it answered so often; of about `most` answers, chosen by their
    time, each for as many as it stands for."""
    drawn = answered > most
    values = {**_bounds(low, high), "model": place[1], "version": place[2]}
    if drawn:
        values["share"] = _MIXED * most // answered
    records = list(_decoded(connection.execute(_drawing(drawn), values)))
    return tally(records, max(1.0, answered / len(records))) if records else {}


def _decoded(rows: Any) -> Iterator[tuple[Any, int]]:
    for outputs, count in rows:
        try:
            yield orjson.loads(outputs), count
        except orjson.JSONDecodeError:
            yield None, count
