"""The export's forms: Parquet row group by row group, and what is said where it cannot be written."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import InvalidRequestError
from modelyard.http.forms import parquet
from modelyard.http.forms.export import COLUMNS, ITEM_COLUMNS, export_lines
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.storage.stores import Stores
from modelyard.testing import memory_stores, prediction_record

ALL = RecordFilter()


def stores_with(count: int, **fields: Any) -> Stores:
    stores = memory_stores()
    records = [prediction_record(f"p{n:05d}", at=1_700_000_000 + n / 1000, **fields) for n in range(count)]
    stores.sink.store(records, SpoolPosition("f", 1))
    return stores


@pytest.mark.parametrize("items", [False, True])
def test_parquet_says_what_json_lines_say(items: bool) -> None:
    """Row by row, column by column; what is nested is JSON text, times are timestamps."""
    stores = stores_with(5, rows=2, inputs={"x": [[1.0], [2.0]]}, outputs={"y": [[1], [2]]}, subject="s")
    stores.outcomes.put([Outcome("p00002", 1, {"a": [1]}, 5.0, "acme", "k1")], 6.0)
    wanted = RecordFilter(items=items)
    lines = [orjson.loads(line) for line in b"".join(export_lines(stores.log, wanted, "jsonl")).splitlines()]
    table = pq.read_table(io.BytesIO(b"".join(export_lines(stores.log, wanted, "parquet"))))
    assert table.column_names == list(ITEM_COLUMNS if items else COLUMNS)
    assert len(lines) == table.num_rows == (10 if items else 5)
    for row, line in zip(table.to_pylist(), lines, strict=True):
        flat = {**line, **line.get("latency", {}), **line.get("sizes", {})}
        for name, value in row.items():
            if name == "time":
                assert value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") == flat[name]
            elif isinstance(flat[name], str | int):
                assert value == flat[name], name
            else:
                assert (None if value is None else orjson.loads(value)) == flat[name], name


def test_parquet_comes_in_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rows are held than a row group has, by number or by size; each group is a piece of its own."""
    stores = stores_with(1000)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 300)
    pieces = list(export_lines(stores.log, ALL, "parquet"))
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [300, 300, 300, 100]
    assert len(pieces) == 5
    assert all(pieces)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 400)
    file = pq.ParquetFile(io.BytesIO(b"".join(export_lines(stores.log, ALL, "parquet"))))
    assert file.num_row_groups > 50


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_empty_log_is_a_whole_file(form: str) -> None:
    """No line, a head alone, a file without rows."""
    data = b"".join(export_lines(memory_stores().log, ALL, form))
    if form == "parquet":
        assert pq.read_table(io.BytesIO(data)).num_rows == 0
    else:
        assert data.count(b"\n") == (form == "csv")


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first byte, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidRequestError) as caught:
        export_lines(memory_stores().log, ALL, "parquet")
    assert "pip install 'modelyard[parquet]'" in caught.value.message
    assert caught.value.detail["field"] == "format"


def test_duckdb_and_pandas_read_the_export(tmp_path: Path) -> None:
    """Without Modelyard: rows, times as timestamps, numbers to add up, JSON to look into."""
    stores = stores_with(5, total_us=7)
    path = tmp_path / "log.parquet"
    path.write_bytes(b"".join(export_lines(stores.log, ALL, "parquet")))
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT count(*), sum(total_us), max(epoch_us(time)) FROM read_parquet($path)", {"path": str(path)}
        ).fetchone()
    assert found == (5, 35, 1_700_000_000_004_000)
    frame = pd.read_parquet(path)
    assert (len(frame), frame["total_us"].sum(), str(frame["time"].dt.tz)) == (5, 35, "UTC")
    assert orjson.loads(frame["outputs"].iloc[0]) == {"y": [[2.0, 4.0]]}
