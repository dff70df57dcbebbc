"""The prediction log as JSON Lines, CSV or Parquet, by request or by item, in chunks, for the routes and the command
line alike.

A CSV cell that a spreadsheet would run as a formula (it starts with `=`, `+`, `-`, `@`, a tab or a line break) gets an
apostrophe in front, as OWASP's page "CSV Injection" advises.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from modelyard.journal.items import item_chunks, item_page
from modelyard.journal.ports import RecordFilter, RecordLog, RecordPage

EXPORT_CHUNK = 500
"""Records, or items, that are in memory at once."""
CONTENT_TYPES = {
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
"""The forms of an export."""

COLUMNS: Sequence[str] = (
    "id", "time", "request_id", "client", "key_id", "endpoint", "model", "version", "arm", "status", "code", "rows",
    "queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes", "flag", "inputs", "outputs", "surface",
    "subject", "outcomes",
)  # fmt: skip
"""The columns of the CSV, in order; `latency` and `sizes` are flattened."""
ITEM_COLUMNS: Sequence[str] = (
    "id", "prediction_id", "item", "time", "request_id", "client", "key_id", "endpoint", "model", "version", "arm",
    "status", "code", "surface", "subject", "flag", "inputs", "outputs", "error", "outcome",
)  # fmt: skip
"""The columns of the CSV of items."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Json = Mapping[str, Any]
Render = Callable[[Iterator[list[dict[str, Any]]]], Iterator[bytes]]


def log_page(log: RecordLog, wanted: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
    """One page of requests, or of items (`wanted.items`)."""
    return item_page(log, wanted, limit, cursor) if wanted.items else log.page(wanted, limit, cursor)


def export_lines(log: RecordLog, wanted: RecordFilter, form: str) -> Iterator[bytes]:
    """All records that match, oldest first, or their items; one piece of bytes a chunk. `form` is one of
    CONTENT_TYPES. The first chunk is read at once, so that a refusal comes before the first byte."""
    render = _renderer(form, ITEM_COLUMNS if wanted.items else COLUMNS)
    chunks: Iterator[list[dict[str, Any]]] = log.export(wanted, EXPORT_CHUNK)
    if wanted.items:
        chunks = item_chunks(chunks, wanted.outcome, EXPORT_CHUNK)
    first = next(chunks, None)
    return render(_again(first, chunks))


def _again(first: list[dict[str, Any]] | None, rest: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    if first is not None:
        yield first
    yield from rest


def _renderer(form: str, columns: Sequence[str]) -> Render:
    if form == "parquet":
        from modelyard.http.forms.parquet import parquet_pieces

        return parquet_pieces(columns)
    if form == "csv":
        return lambda chunks: _csv_pieces(chunks, columns)
    return lambda chunks: map(json_lines, chunks)


def json_lines(records: Iterable[Json]) -> bytes:
    """One record a line."""
    return b"".join(orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def _csv_pieces(chunks: Iterable[Iterable[Json]], columns: Sequence[str]) -> Iterator[bytes]:
    yield _csv([columns])
    for chunk in chunks:
        yield csv_rows(chunk, columns)


def csv_rows(records: Iterable[Json], columns: Sequence[str] = COLUMNS) -> bytes:
    """One record a row, without the head; nested values as JSON."""
    return _csv([_cell(flat(record).get(column)) for column in columns] for record in records)


def flat(record: Json) -> dict[str, Any]:
    """A record with `latency` and `sizes` beside the rest."""
    return {**record, **(record.get("latency") or {}), **(record.get("sizes") or {})}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode("utf-8", "replace")
