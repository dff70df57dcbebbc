"""Figures of minutes, hours and days as they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, insert, or_, select

from modelyard.analytics.cells import Figures
from modelyard.analytics.histogram import percentiles
from modelyard.analytics.scores import Scores
from modelyard.storage.sql import schema

_R = schema.rollups.c
_S = schema.score_rollups.c
_FIGURES = Figures.__struct_fields__
_COLUMNS = (_R.start, _R.endpoint, _R.model, _R.version, _R.client, *(_R[name] for name in _FIGURES))

Cell = tuple[tuple[int, str, str, str, str], Figures]
"""Start, endpoint, model, version and client; and their figures."""
Piece = tuple[int, int, int]
"""Grain, and from when to when."""

_decode = msgspec.msgpack.Decoder(Scores).decode


def pieces(table: Table, wanted: Iterable[Piece]) -> ColumnElement[bool]:
    """What is kept for these."""
    c = table.c
    return or_(*(and_(c.grain == grain, c.start >= low, c.start < high) for grain, low, high in wanted))


def read_cells(connection: Connection, *conditions: ColumnElement[bool], most: int) -> list[Cell]:
    """Cells that match, at most so many."""
    rows = connection.execute(select(*_COLUMNS).where(*conditions).limit(most))
    return [(tuple(row[:5]), Figures(*row[5:])) for row in rows]


def requests_kept(connection: Connection, piece: Piece) -> int:
    """How many requests the cells of a piece count."""
    everybody = _R.client == schema.EVERYBODY
    counted = select(func.coalesce(func.sum(_R.requests), 0)).where(pieces(schema.rollups, [piece]), everybody)
    return int(connection.execute(counted).scalar_one())


def write_cells(connection: Connection, piece: Piece, cells: Sequence[Cell]) -> None:
    """In place of what was kept for it."""
    connection.execute(delete(schema.rollups).where(pieces(schema.rollups, [piece])))
    if cells:
        connection.execute(insert(schema.rollups), [_row(piece[0], *cell) for cell in cells])


def _row(grain: int, place: tuple[int, str, str, str, str], figures: Figures) -> dict[str, Any]:
    names = dict(zip(("start", "endpoint", "model", "version", "client"), place, strict=True))
    p50, p90, p99 = percentiles(figures.latency, (0.5, 0.9, 0.99))
    kept = {name: getattr(figures, name) for name in _FIGURES}
    return {"grain": grain, **names, **kept, "p50_us": p50, "p90_us": p90, "p99_us": p99}


ScoreCell = tuple[tuple[int, str, str, str], Scores]
"""Start, model, version and output; and its scores."""


def read_score_cells(connection: Connection, *conditions: ColumnElement[bool], most: int) -> list[ScoreCell]:
    """Cells that match, at most so many."""
    columns = (_S.start, _S.model, _S.version, _S.output, _S.scores)
    rows = connection.execute(select(*columns).where(*conditions).limit(most))
    return [(tuple(row[:4]), _decode(row[4])) for row in rows]


def write_score_cells(connection: Connection, piece: Piece, cells: Iterable[ScoreCell]) -> None:
    """In place of what was kept for it."""
    connection.execute(delete(schema.score_rollups).where(pieces(schema.score_rollups, [piece])))
    rows = [
        {"grain": piece[0], "start": start, "model": model, "version": version, "output": output,
         "scores": msgspec.msgpack.encode(scores)}
        for (start, model, version, output), scores in cells
    ]  # fmt: skip
    if rows:
        connection.execute(insert(schema.score_rollups), rows)


def drop_before(connection: Connection, grain: int, start: int) -> None:
    """Forgets cells of a grain that nobody asks for any more."""
    for table in (schema.rollups, schema.score_rollups):
        connection.execute(delete(table).where(table.c.grain == grain, table.c.start < start))


def named(table: Table, names: Mapping[str, str | None]) -> list[ColumnElement[bool]]:
    """Columns that must have these values; None matches all."""
    return [table.c[name] == value for name, value in names.items() if value is not None]
