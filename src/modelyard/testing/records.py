"""The prediction log in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from modelyard.core.types import Signature
from modelyard.journal.ports import RecordFilter, RecordPage, SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.models.manifest import Manifest
from modelyard.storage import refusals
from modelyard.storage.prediction_row import (
    AT,
    COLUMNS,
    decode_cursor,
    encode_cursor,
    matches,
    to_record,
    to_row,
)

_PAYLOAD = COLUMNS.index("payload_sha256")


class MemoryRecordSink:
    """journal.ports.RecordSink in memory, safe for threads. `records` are what it was given and kept, by id;
    `quarantined` those whose id another payload holds. `manifest_of` finds manifests (Registry.manifest)."""

    def __init__(self, manifest_of: Callable[[str], Manifest | None] | None = None) -> None:
        self._lock = threading.Lock()
        self._manifest_of = manifest_of
        self._positions: dict[str, int] = {}
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.records: dict[str, PredictionRecord] = {}
        self.quarantined: list[PredictionRecord] = []

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition) -> StoredBatch:
        """Stores a batch and the position behind it."""
        rows = list(map(to_row, records))
        inserted = quarantined = 0
        with self._lock:
            for record, row in zip(records, rows, strict=True):
                stored = self.rows.setdefault(record.header.id, row)
                if stored is row:
                    self.records[record.header.id] = record
                    inserted += 1
                elif stored[_PAYLOAD] != record.payload_sha256:
                    self.quarantined.append(record)
                    quarantined += 1
            self._positions[position.file] = position.offset
        return StoredBatch(inserted, len(rows) - inserted - quarantined, quarantined)

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""
        return self._positions.get(file, 0)

    def forget(self, file: str) -> None:
        """Drops the position of a file."""
        with self._lock:
            self._positions.pop(file, None)

    def signature(self, manifest: str) -> Signature | None:
        """The signature under this manifest digest."""
        found = self._manifest_of(manifest) if self._manifest_of else None
        return None if found is None else found.signature


class MemoryRecordLog:
    """journal.ports.RecordLog over what a MemoryRecordSink holds."""

    def __init__(self, sink: MemoryRecordSink) -> None:
        self._sink = sink

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        rows = self._matching(filter)[::-1]
        if cursor is not None:
            behind = decode_cursor(cursor)
            rows = [row for row in rows if (row[AT], row[0]) < behind]
        following = encode_cursor(rows[limit - 1][AT], rows[limit - 1][0]) if len(rows) > limit else None
        return RecordPage(tuple(map(to_record, rows[:limit])), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        return len(self._matching(filter))

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        row = self._sink.rows.get(prediction_id)
        if row is None:
            raise refusals.prediction_not_found(prediction_id)
        return to_record(row)

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first, in chunks."""
        rows = self._matching(filter)
        for start in range(0, len(rows), chunk):
            yield [to_record(row) for row in rows[start : start + chunk]]

    def _matching(self, wanted: RecordFilter) -> list[tuple[Any, ...]]:
        rows = [row for row in tuple(self._sink.rows.values()) if matches(row, wanted)]
        return sorted(rows, key=lambda row: (row[AT], row[0]))
