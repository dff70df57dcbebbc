"""The prediction log as one Parquet file, written while it is read: row group after row group, then the footer.

Times are timestamps in UTC, numbers are numbers; what has another form in every model (inputs, outputs, outcomes) is
JSON text, so that all models share one schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson

from modelyard.core.errors import InvalidRequestError
from modelyard.http.forms.export import Render, flat

GROUP_ROWS = 4000
"""Rows of a row group; Parquet readers like large ones, memory likes small ones."""
GROUP_BYTES = 8 * 1024 * 1024
"""A row group ends here too, if its JSON is long."""
INSTALL = "pip install 'modelyard[parquet]'"

_JSON = frozenset({"inputs", "outputs", "outcomes", "error", "outcome"})
_INT32 = frozenset({"item", "arm", "status", "rows"})
_INT64 = frozenset({"queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes"})


def parquet_pieces(columns: Sequence[str]) -> Render:
    """Makes the pieces of a file of these columns; InvalidRequestError("parameter_invalid") without pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InvalidRequestError(
            "parameter_invalid",
            f"Parquet needs a package that is not installed here: {INSTALL}",
            field="format",
            expected="jsonl or csv, or the package",
            got="parquet",
            example=INSTALL,
        ) from None
    return lambda chunks: _pieces(chunks, columns)


class _Taken:
    """A file that only grows, whose bytes are taken as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def _pieces(chunks: Iterator[list[dict[str, Any]]], columns: Sequence[str]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _type(pa, name)) for name in columns])
    taken = _Taken()
    writer = pq.ParquetWriter(pa.PythonFile(taken, mode="w"), schema, compression="zstd")
    for rows in _groups(chunks, columns):
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        yield taken.take()
    writer.close()
    yield taken.take()


def _type(pa: Any, name: str) -> Any:
    if name == "time":
        return pa.timestamp("us", tz="UTC")
    return pa.int32() if name in _INT32 else pa.int64() if name in _INT64 else pa.string()


def _groups(chunks: Iterator[list[dict[str, Any]]], columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size_bytes = 0
    for chunk in chunks:
        for record in chunk:
            row = _row(flat(record), columns)
            group.append(row)
            size_bytes += sum(len(row[name] or "") for name in columns if name in _JSON)
            if len(group) >= GROUP_ROWS or size_bytes >= GROUP_BYTES:
                yield group
                group, size_bytes = [], 0
    if group:
        yield group


def _row(record: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: record.get(name) for name in columns}
    for name in columns:
        if name in _JSON:
            row[name] = None if row[name] is None else orjson.dumps(row[name], default=str).decode()
    row["time"] = datetime.fromisoformat(record["time"])
    return row
