"""retention.ports.Archive as Parquet files.

One folder a day and endpoint, as Hive names them: `day=2026-01-31/endpoint=fraud/part-<digest>.parquet`. The digest is
over the ids of the file, so that a batch that is written again after a kill has the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from io import BytesIO
from typing import Any

import orjson

from modelyard.retention.ports import Archived, ErasedFile, Partition
from modelyard.storage.archive.places import PARTIAL, Place

PART_ROWS = 20_000
PART_BYTES = 64 * 1024 * 1024
"""A file ends at either; its JSON is in memory until it is written."""
_GROUP_ROWS = 4000
COLUMNS = (
    "id", "time", "request_id", "client", "key_id", "model", "version", "arm", "status", "code", "rows", "inputs",
    "outputs", "queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes", "flag", "surface", "subject",
    "outcomes",
)  # fmt: skip
"""The columns of a file; `day` and `endpoint` are in its path."""
JSON = frozenset({"inputs", "outputs", "outcomes"})
_INT32 = frozenset({"arm", "status", "rows"})
_INT64 = frozenset({"queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes"})


def schema() -> Any:
    """The files' schema."""
    import pyarrow as pa

    def kind(name: str) -> Any:
        if name == "time":
            return pa.timestamp("us", tz="UTC")
        return pa.int32() if name in _INT32 else pa.int64() if name in _INT64 else pa.string()

    return pa.schema([(name, kind(name)) for name in COLUMNS])


class ParquetArchive:
    """retention.ports.Archive over a folder or a bucket."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def begin(self) -> None:
        """Takes away what was being written."""
        for name in self.place.names(kind=PARTIAL):
            self.place.remove(name)

    def ids(self, partition: Partition) -> set[str]:
        """What is there already of a partition."""
        import pyarrow.parquet as pq

        found: set[str] = set()
        for name in self.place.names(_folder(partition)):
            table = pq.read_table(BytesIO(self.place.read(name)), columns=["id"], partitioning=None)
            found.update(table.column("id").to_pylist())
        return found

    def write(
        self,
        partition: Partition,
        chunks: Iterator[list[dict[str, Any]]],
        known: Collection[str],
        still_alone: Callable[[], None],
    ) -> Archived:
        """Writes one file of the first records that are not `known`."""
        rows: list[dict[str, Any]] = []
        ids: list[str] = []
        size_bytes = 0
        for chunk in chunks:
            ids += [record["id"] for record in chunk]
            new = [_row(record) for record in chunk if record["id"] not in known]
            rows += new
            size_bytes += sum(len(row[name]) for row in new for name in JSON)
            if len(ids) >= PART_ROWS or size_bytes >= PART_BYTES:
                break
        if not rows:
            return Archived("", tuple(ids))
        digest = hashlib.sha256("\n".join(row["id"] for row in rows).encode()).hexdigest()
        name = f"{_folder(partition)}/part-{digest[:16]}.parquet"
        self.place.write(name, _parquet(rows), still_alone)
        return Archived(name, tuple(ids))

    def erase(
        self, subject: str, keeps: Callable[[dict[str, Any]], bool], still_alone: Callable[[], None]
    ) -> Iterator[ErasedFile]:
        """Rewrites every file that has records of a subject, without those that `keeps` does not keep."""
        looked = set[str]()
        while new := [name for name in self.place.names() if name not in looked]:
            for name in new:
                looked.add(name)
                if gone := self._without(name, subject, keeps, still_alone):
                    yield ErasedFile(name, gone)

    def _without(
        self, name: str, subject: str, keeps: Callable[[dict[str, Any]], bool], still_alone: Callable[[], None]
    ) -> int:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        content = self.place.read(name)
        named = pq.read_table(BytesIO(content), columns=["subject"], partitioning=None)
        if not pc.any(pc.equal(named.column("subject"), subject)).as_py():
            return 0
        rows = pq.read_table(BytesIO(content), partitioning=None).to_pylist()
        endpoint = name.split("/")[1].removeprefix("endpoint=")
        left = [row for row in rows if row["subject"] != subject or keeps({**row, "endpoint": endpoint})]
        if left and len(left) < len(rows):
            self.place.write(name, _parquet(left), still_alone)
        elif not left:
            still_alone()
            self.place.remove(name)
        return len(rows) - len(left)

    def count(self, subject: str) -> int:
        """How many records of a subject there are."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        found = 0
        for name in self.place.names():
            named = pq.read_table(BytesIO(self.place.read(name)), columns=["subject"], partitioning=None)
            found += int(pc.sum(pc.equal(named.column("subject"), subject)).as_py() or 0)
        return found


def _folder(partition: Partition) -> str:
    return f"day={partition.day}/endpoint={partition.endpoint}"


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=schema())
    pq.write_table(table, made, compression="zstd", row_group_size=_GROUP_ROWS)
    return bytes(made.getvalue())


def _row(record: dict[str, Any]) -> dict[str, Any]:
    flat = {**record, **record["latency"], **record["sizes"]}
    row = {name: orjson.dumps(flat[name], default=str).decode() if name in JSON else flat[name] for name in COLUMNS}
    return {**row, "time": datetime.fromisoformat(record["time"])}
