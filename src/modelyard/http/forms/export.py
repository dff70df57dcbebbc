"""The prediction log as JSON Lines and CSV, in chunks, for the routes and the command line alike.

A CSV cell that a spreadsheet would run as a formula (it starts with `=`, `+`, `-`, `@`, a tab or a line break) gets an
apostrophe in front, as OWASP's page "CSV Injection" advises.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from modelyard.journal.ports import RecordFilter, RecordLog

EXPORT_CHUNK = 500
"""Records that are in memory at once."""
CONTENT_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}

COLUMNS: Sequence[str] = (
    "id", "time", "request_id", "client", "key_id", "endpoint", "model", "version", "arm", "status", "code", "rows",
    "queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes", "flag", "inputs", "outputs",
)  # fmt: skip
"""The columns of the CSV, in order; `latency` and `sizes` are flattened."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_lines(log: RecordLog, wanted: RecordFilter, form: str) -> Iterator[bytes]:
    """All records that match, oldest first; one piece of bytes a chunk. `form` is `jsonl` or `csv`. The first chunk
    is read at once, so that a refusal comes before the first byte."""
    chunks = log.export(wanted, EXPORT_CHUNK)
    first = next(chunks, None)
    return _render([] if first is None else first, chunks, form)


def _render(first: list[dict[str, Any]], rest: Iterable[list[dict[str, Any]]], form: str) -> Iterator[bytes]:
    if form == "csv":
        yield _csv([COLUMNS])
    render = csv_rows if form == "csv" else json_lines
    if first:
        yield render(first)
    for chunk in rest:
        yield render(chunk)


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One record a line."""
    return b"".join(orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def csv_rows(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One record a row, without the head; nested values as JSON."""
    return _csv([_cell(_flat(record).get(column)) for column in COLUMNS] for record in records)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
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
