"""Figures of a time from the log itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, select

from modelyard.analytics.cells import Figures, fold
from modelyard.analytics.histogram import EXACT_BELOW, MOST, bin_of, packed
from modelyard.analytics.scores import Scores, tally
from modelyard.storage.sql import schema
from modelyard.storage.sql.records.query import ITEMS

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


def between(low: int, high: int) -> ColumnElement[bool]:
    """The requests of [low, high), in UNIX seconds."""
    return and_(_P.at >= low * 1_000_000, _P.at < high * 1_000_000)


def count_rows(connection: Connection, *conditions: ColumnElement[bool]) -> dict[Place, Figures]:
    """The figures of requests that match, by endpoint, model, version and client."""
    one = (
        select(
            _P.endpoint, _P.model, _P.version, _P.client, _P.total_us, _P.request_bytes, _P.answer_bytes,
            _KIND.label("kind"), case((_KIND == _ANSWERED, _bins()), else_=-1).label("bin"), ITEMS.label("item_count"),
        )
        .where(*conditions)
        .subquery()
    ).c  # fmt: skip
    names = (one.endpoint, one.model, one.version, one.client, one.kind, one.bin)
    sums = (one.item_count, one.total_us, one.request_bytes, one.answer_bytes)
    wanted = select(*names, func.count(), *(func.sum(value) for value in sums), func.max(one.total_us))
    rows = connection.execute(wanted.group_by(*names))
    return fold((tuple(row[:4]), _figures(*map(int, row[4:]))) for row in rows)


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


def sample_scores(
    connection: Connection, low: int, high: int, place: Place, answered: int, most: int
) -> dict[str, Scores]:
    """The scores of a version in [low, high), where it answered so often; of about `most` answers, chosen by their
    time, each for as many as it stands for."""
    conditions: Sequence[ColumnElement[bool]] = (
        _P.model == place[1], _P.version == place[2], between(low, high), _P.status >= 200, _P.status < 400,
    )  # fmt: skip
    wanted = select(_P.outputs, _P.rows).where(*conditions)
    if answered > most:
        drawn = _P.at % _HASH * _PRIME % _MIXED
        wanted = wanted.where(drawn < cast(_MIXED * most // answered, Integer))
    records = list(_decoded(connection.execute(wanted)))
    return tally(records, max(1.0, answered / len(records))) if records else {}


def _decoded(rows: Any) -> Iterator[tuple[Any, int]]:
    for outputs, count in rows:
        try:
            yield orjson.loads(outputs), count
        except orjson.JSONDecodeError:
            yield None, count
