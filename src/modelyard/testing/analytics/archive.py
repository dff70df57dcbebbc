"""An archive in memory, and the records on their way to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.lease import Fence
from modelyard.retention.ports import Archived, Cutoffs, Deleted, ErasedFile, Partition
from modelyard.storage.prediction_row import AT, COLUMNS, time_text, to_record
from modelyard.testing.records import MemoryOutcomeStore, MemoryRetention

_ENDPOINT = COLUMNS.index("endpoint")


class MemoryLeavingRecords:
    """retention.ports.LeavingRecords over what a MemoryRetention deletes."""

    def __init__(self, retention: MemoryRetention, outcomes: MemoryOutcomeStore, record: Callable[..., None]) -> None:
        self._retention = retention
        self._outcomes = outcomes
        self._record = record

    def next_partition(self, cutoffs: Cutoffs) -> Partition | None:
        """That of the oldest record that is due."""
        rows = self._retention.free_before(cutoffs.predictions)
        return Partition(time_text(rows[0][AT])[:10], rows[0][_ENDPOINT]) if rows else None

    def leaving(self, cutoffs: Cutoffs, partition: Partition, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """Its records that are due, oldest first."""
        rows = [row for row in self._retention.free_before(cutoffs.predictions)
                if Partition(time_text(row[AT])[:10], row[_ENDPOINT]) == partition]  # fmt: skip
        for start in range(0, len(rows), chunk):
            yield [to_record(row, self._outcomes.latest(row[0])) for row in rows[start : start + chunk]]

    def delete_archived(self, cutoffs: Cutoffs, ids: Sequence[str], file: str, fence: Fence | None = None) -> Deleted:
        """Deletes those that are still due."""
        self._retention.leases.check(fence)
        gone = [row[0] for row in self._retention.free_before(cutoffs.predictions) if row[0] in ids]
        outcomes = self._retention.drop(gone)
        if gone:
            said = {"predictions": len(gone), "outcomes": outcomes, "archived": file}
            self._record(AuditAction.RETENTION_DELETE, "retention:age", None, said)
        return Deleted(len(gone), outcomes, ids=tuple(gone))


class MemoryArchive:
    """retention.ports.Archive in memory: `files` are records by name."""

    def __init__(self) -> None:
        self.files: dict[str, list[dict[str, Any]]] = {}

    def begin(self) -> None:
        """Nothing is half written here."""

    def ids(self, partition: Partition) -> set[str]:
        """Which records of a partition are there."""
        return {one["id"] for name, rows in self.files.items() if name.startswith(_folder(partition)) for one in rows}

    def write(
        self,
        partition: Partition,
        chunks: Iterator[list[dict[str, Any]]],
        known: Collection[str],
        still_alone: Callable[[], None],
    ) -> Archived:
        """Writes one file of all records that are not known."""
        records = [record for chunk in chunks for record in chunk]
        ids = tuple(record["id"] for record in records)
        new = [
            {**record, "time": datetime.fromisoformat(record["time"])}
            for record in records
            if record["id"] not in known
        ]
        if not new:
            return Archived("", ids)
        name = f"{_folder(partition)}part-{new[0]['id']}-{len(new)}.parquet"
        still_alone()
        self.files[name] = new
        return Archived(name, ids)

    def erase(
        self, subject: str, keeps: Callable[[dict[str, Any]], bool], still_alone: Callable[[], None]
    ) -> Iterator[ErasedFile]:
        """Takes a subject's records out."""
        for name, rows in list(self.files.items()):
            left = [row for row in rows if row["subject"] != subject or keeps(row)]
            if len(left) < len(rows):
                still_alone()
                self.files[name] = left
                if not left:
                    del self.files[name]
                yield ErasedFile(name, len(rows) - len(left))

    def count(self, subject: str) -> int:
        """How many records of a subject there are."""
        return sum(row["subject"] == subject for rows in self.files.values() for row in rows)


def _folder(partition: Partition) -> str:
    return f"day={partition.day}/endpoint={partition.endpoint}/"
