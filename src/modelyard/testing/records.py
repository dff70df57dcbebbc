"""The prediction log in memory."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import orjson

from modelyard.core.types import Signature
from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.outcomes import value_text
from modelyard.journal.ports import (
    Outcome,
    RecordFilter,
    RecordPage,
    SpoolPosition,
    StoredBatch,
    StoredOutcome,
    Target,
    items_of,
)
from modelyard.journal.record import PredictionRecord
from modelyard.models.manifest import Manifest
from modelyard.storage import refusals
from modelyard.storage.prediction_row import (
    AT,
    COLUMNS,
    matches,
    matching_items,
    microseconds,
    time_text,
    to_record,
    to_row,
)

_PAYLOAD = COLUMNS.index("payload_sha256")
_CLIENT, _ENDPOINT, _ROWS, _STATUS = map(COLUMNS.index, ("client", "endpoint", "rows", "status"))


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
    """journal.ports.RecordLog over what a MemoryRecordSink holds, with the outcomes of a MemoryOutcomeStore."""

    def __init__(self, sink: MemoryRecordSink, outcomes: MemoryOutcomeStore | None = None) -> None:
        self._sink = sink
        self._outcomes = outcomes or MemoryOutcomeStore(sink)

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        rows = self._matching(filter)[::-1]
        if cursor is not None:
            behind = decode_cursor(cursor)
            rows = [row for row in rows if (row[AT], row[0]) < behind]
        following = encode_cursor(rows[limit - 1][AT], rows[limit - 1][0]) if len(rows) > limit else None
        return RecordPage(tuple(map(self._record, rows[:limit])), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        rows = self._matching(filter)
        if not filter.items:
            return len(rows)
        return sum(matching_items(row, filter.outcome, self._outcomes.latest(row[0])) for row in rows)

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        row = self._sink.rows.get(prediction_id)
        if row is None:
            raise refusals.prediction_not_found(prediction_id)
        return self._record(row)

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first, in chunks."""
        rows = self._matching(filter)
        for start in range(0, len(rows), chunk):
            yield [self._record(row) for row in rows[start : start + chunk]]

    def _record(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return to_record(row, self._outcomes.latest(row[0]))

    def _matching(self, wanted: RecordFilter) -> list[tuple[Any, ...]]:
        rows = [row for row in tuple(self._sink.rows.values()) if matches(row, wanted, self._outcomes.latest(row[0]))]
        return sorted(rows, key=lambda row: (row[AT], row[0]))


class MemoryOutcomeStore:
    """journal.ports.OutcomeStore in memory, beside what a MemoryRecordSink holds."""

    def __init__(self, sink: MemoryRecordSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._given: dict[tuple[str, int], list[tuple[Outcome, str, float]]] = {}

    def put(self, outcomes: Sequence[Outcome], recorded_at: float) -> list[StoredOutcome]:
        """Stores all of them, in order."""
        with self._lock:
            return [self._put(outcome, value_text(outcome.value), recorded_at) for outcome in outcomes]

    def _put(self, outcome: Outcome, text: str, recorded_at: float) -> StoredOutcome:
        revisions = self._given.setdefault((outcome.prediction_id, outcome.item), [])
        created = not revisions or revisions[-1][1] != text
        if created:
            revisions.append((outcome, text, recorded_at))
        at, joined = revisions[-1][0].at, outcome.prediction_id in self._sink.rows
        return StoredOutcome(outcome.prediction_id, outcome.item, outcome.value, at, len(revisions), created, joined)

    def targets(self, ids: Sequence[str]) -> dict[str, Target]:
        """Those of the requests that are in the log."""
        rows = {one: self._sink.rows[one] for one in ids if one in self._sink.rows}
        return {
            one: Target(row[_CLIENT], row[_ENDPOINT], items_of(row[_ROWS], row[_STATUS])) for one, row in rows.items()
        }

    def history(self, prediction_id: str) -> list[dict[str, Any]]:
        """All revisions, oldest first within an item."""
        return [
            {
                **_shown(item, number, outcome, text),
                "recorded_at": time_text(microseconds(recorded_at, "recorded_at")),
                "client": outcome.client,
                "key_id": outcome.key_id,
            }
            for (one, item), revisions in sorted(self._given.items())
            if one == prediction_id
            for number, (outcome, text, recorded_at) in enumerate(revisions, 1)
        ]

    def latest(self, prediction_id: str) -> list[dict[str, Any]]:
        """The latest outcome of each item, by item."""
        return [
            _shown(item, len(revisions), *revisions[-1][:2])
            for (one, item), revisions in sorted(self._given.items())
            if one == prediction_id
        ]


def _shown(item: int, revision: int, outcome: Outcome, text: str) -> dict[str, Any]:
    at = time_text(microseconds(outcome.at, "at"))
    return {"item": item, "value": orjson.loads(text), "at": at, "revision": revision}


class MemoryQuarantineLog:
    """journal.ports.QuarantineLog over what a MemoryRecordSink holds."""

    def __init__(self, sink: MemoryRecordSink) -> None:
        self._sink = sink

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        wanted = msgspec.structs.replace(filter, status=None, subject=None, outcome=None, items=False)
        kept = [(record, reason) for record, reason in self._kept() if matches(to_row(record), wanted)]
        shown = sorted((_quarantined(record, reason) for record, reason in kept), key=_place, reverse=True)
        if cursor is not None:
            behind = decode_cursor(cursor)
            shown = [one for one in shown if _place(one) < behind]
        following = encode_cursor(*_place(shown[limit - 1])) if len(shown) > limit else None
        return RecordPage(tuple({**one, "time": time_text(one["time"])} for one in shown[:limit]), following)

    def raw(self, prediction_id: str) -> list[dict[str, Any]]:
        """All that was kept under this id."""
        found: list[dict[str, Any]] = []
        for record, reason in self._kept():
            if record.header.id == prediction_id and (record.raw is not None or reason == "id_taken"):
                kept = {"reason": reason, "payload_sha256": record.payload_sha256}
                raw = {} if record.raw is None else {"raw": base64.b64encode(record.raw).decode()}
                if reason == "id_taken":
                    found.append({**kept, "record": to_record(to_row(record)) | raw})
                else:
                    found.append({**kept, **raw})
        if not found:
            raise refusals.prediction_not_found(prediction_id)
        return found

    def _kept(self) -> list[tuple[PredictionRecord, str]]:
        flagged = [r for r in self._sink.records.values() if r.flag not in ("", "request_refused")]
        taken = {(r.header.id, r.payload_sha256): r for r in self._sink.quarantined}
        return [*((record, record.flag) for record in flagged), *((record, "id_taken") for record in taken.values())]


def _quarantined(record: PredictionRecord, reason: str) -> dict[str, Any]:
    header = record.header
    return {
        "id": header.id,
        "time": header.at_ns // 1000,
        "reason": reason,
        "raw_bytes": len(record.raw or b""),
        "client": header.client,
        "endpoint": header.endpoint,
        "model": header.model,
        "version": header.version,
        "status": header.status,
        "payload_sha256": record.payload_sha256,
    }


def _place(shown: dict[str, Any]) -> tuple[int, str]:
    return shown["time"], f"{shown['id']}/{shown['payload_sha256']}"
