"""The prediction log in memory."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import orjson

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.lease import Fence
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
from modelyard.journal.record import PredictionRecord, RecordHeader
from modelyard.models.manifest import Manifest
from modelyard.retention.ports import Cutoffs, Deleted, Due, Found, Hold, keeps
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
from modelyard.testing.clock import MemoryLeases

_PAYLOAD = COLUMNS.index("payload_sha256")
_CLIENT, _ENDPOINT, _ROWS, _STATUS = map(COLUMNS.index, ("client", "endpoint", "rows", "status"))
_SUBJECT = COLUMNS.index("subject")


class MemoryRecordSink:
    """journal.ports.RecordSink in memory, safe for threads. `records` are what it was given and kept, by id;
    `quarantined` those whose id another payload holds, `erasures` whose records are not taken any more. `manifest_of`
    finds manifests (Registry.manifest)."""

    def __init__(self, manifest_of: Callable[[str], Manifest | None] | None = None) -> None:
        self._lock = threading.Lock()
        self._manifest_of = manifest_of
        self._positions: dict[str, int] = {}
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.records: dict[str, PredictionRecord] = {}
        self.quarantined: list[PredictionRecord] = []
        self.erasures: list[tuple[str, float]] = []
        self.holds: dict[str, Hold] = {}

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        """Stores a batch and the position behind it."""
        inserted = quarantined = erased = 0
        with self._lock:
            for record in records:
                if self._is_erased(record.header) and not keeps(self.holds.values(), record.header):
                    erased += 1
                    continue
                row = to_row(record)
                stored = self.rows.setdefault(record.header.id, row)
                if stored is row:
                    self.records[record.header.id] = record
                    inserted += 1
                elif stored[_PAYLOAD] != record.payload_sha256:
                    self.quarantined.append(record)
                    quarantined += 1
            if position is not None:
                self._positions[position.file] = position.offset
        return StoredBatch(inserted, len(records) - inserted - quarantined - erased, quarantined, erased)

    def _is_erased(self, header: RecordHeader) -> bool:
        return any(header.subject == who and header.at_ns <= at * 1e9 for who, at in self.erasures)

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


    def forget(self, prediction_id: str) -> int:
        """Drops a prediction's outcomes; how many revisions that were."""
        mine = [place for place in self._given if place[0] == prediction_id]
        return sum(len(self._given.pop(place)) for place in mine)

    def orphans(self, before: float) -> list[str]:
        """Predictions without a record whose outcomes were all given before then."""
        given = {one: max(r[-1][2] for (two, _), r in self._given.items() if two == one) for one, _ in self._given}
        return [one for one, at in given.items() if one not in self._sink.rows and at < before]


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


class MemoryRetention:
    """retention.ports.RetentionStore, HoldStore and ErasureStore in memory, beside the stores of the log; certificates
    go to `record` (MemoryAuditLog.record)."""

    def __init__(self, sink: MemoryRecordSink, outcomes: MemoryOutcomeStore, record: Callable[..., None]) -> None:
        self._sink = sink
        self._outcomes = outcomes
        self._record = record
        self._holds = sink.holds
        self.leases = MemoryLeases()
        self._swept: float | None = None

    def due(self, cutoffs: Cutoffs) -> Due:
        """What would leave now."""
        old = [row for row in self._sink.rows.values() if row[AT] < cutoffs.predictions * 1e6]
        free = sum(not self._held(row) for row in old)
        return Due(free, len(old) - free, len(self._aside(cutoffs)), len(self._sink.rows))

    def delete(
        self, cutoffs: Cutoffs, since: float, most: int, fence: Fence | None = None, records: bool = True
    ) -> Deleted:
        """Deletes one batch."""
        self.leases.check(fence)
        due = [r for r in self._sink.rows.values() if since * 1e6 <= r[AT] < cutoffs.predictions * 1e6]
        rows = due if records else []
        free = sorted((row for row in rows if not self._held(row)), key=lambda row: (row[AT], row[0]))
        ids = [row[0] for row in free[:most]]
        outcomes = self.drop(ids) + sum(map(self._outcomes.forget, self._outcomes.orphans(cutoffs.predictions)))
        aside = self._aside(cutoffs)
        self._sink.quarantined = [one for one in self._sink.quarantined if one not in aside[:most]]
        if ids or outcomes or aside:
            said = {"predictions": len(ids), "outcomes": outcomes, "quarantined": len(aside[:most])}
            self._record(AuditAction.RETENTION_DELETE, "retention:age", None, said)
        at = free[most - 1][AT] / 1e6 if len(free) > most else since if len(aside) > most else None
        return Deleted(len(ids), outcomes, len(aside[:most]), at, tuple(ids))

    def swept(self) -> float | None:
        """When the last sweep ended."""
        return self._swept

    def mark_swept(self, at: float) -> None:
        """A sweep ended."""
        self._swept = at

    def add(self, hold: Hold) -> None:
        """From now on this is held."""
        self._holds[hold.id] = hold
        self._record(AuditAction.HOLD_CREATE, f"hold:{hold.id}", None, {"reason": hold.reason})

    def holds(self) -> list[Hold]:
        """Those in force."""
        return sorted(self._holds.values(), key=lambda hold: (hold.at, hold.id))

    def release(self, hold_id: str) -> Hold:
        """Ends one."""
        if hold_id not in self._holds:
            raise refusals.hold_not_found(hold_id)
        hold = self._holds.pop(hold_id)
        self._record(AuditAction.HOLD_RELEASE, f"hold:{hold_id}", {"reason": hold.reason}, None)
        return hold

    def find(self, subject: str) -> Found:
        """What is there."""
        mine = [row for row in self._sink.rows.values() if row[_SUBJECT] == subject]
        held = sum(map(self._held, mine))
        aside = [one for one in self._sink.quarantined if one.header.subject == subject]
        kept = sum(keeps(self._holds.values(), one.header) for one in aside)
        return Found(len(mine) - held, held + kept, len(aside) - kept)

    def register(self, subject: str, at: float) -> str:
        """What comes later and is older is not stored."""
        self._sink.erasures.append((subject, at))
        self._record(AuditAction.SUBJECT_ERASE, f"erasure:{len(self._sink.erasures)}", None, {})
        return str(len(self._sink.erasures))

    def erase(self, erasure_id: str, subject: str, most: int) -> Deleted:
        """Deletes one batch."""
        before = self._sink.erasures[int(erasure_id) - 1][1] * 1e6
        rows = [r for r in self._sink.rows.values() if r[_SUBJECT] == subject and r[AT] <= before]
        ids = [row[0] for row in rows if not self._held(row)][:most]
        outcomes = self.drop(ids)
        mine = (one for one in self._sink.quarantined if one.header.subject == subject)
        aside = [one for one in mine if not keeps(self._holds.values(), one.header)]
        self._sink.quarantined = [one for one in self._sink.quarantined if one not in aside]
        if ids or aside:
            gone = {"predictions": len(ids), "outcomes": outcomes, "quarantined": len(aside)}
            self._record(AuditAction.RETENTION_DELETE, f"erasure:{erasure_id}", None, gone)
        return Deleted(len(ids), outcomes, len(aside), 0.0 if len(ids) == most else None, tuple(ids))

    def certify(self, erasure_id: str, gone: dict[str, Any]) -> None:
        """Writes the certificate of what was deleted elsewhere."""
        self._record(AuditAction.RETENTION_DELETE, f"erasure:{erasure_id}", None, gone)

    def free_before(self, at: float) -> list[tuple[Any, ...]]:
        """Rows that are older than this and not held, oldest first."""
        rows = [row for row in self._sink.rows.values() if row[AT] < at * 1e6 and not self._held(row)]
        return sorted(rows, key=lambda row: (row[AT], row[0]))

    def drop(self, ids: Sequence[str]) -> int:
        """Deletes records; how many outcomes went with them."""
        for one in ids:
            del self._sink.rows[one], self._sink.records[one]
        return sum(map(self._outcomes.forget, ids))

    def _held(self, row: tuple[Any, ...]) -> bool:
        return any(_holds(hold, dict(zip(COLUMNS, row, strict=True))) for hold in self._holds.values())

    def _aside(self, cutoffs: Cutoffs) -> list[PredictionRecord]:
        old = (one for one in self._sink.quarantined if one.header.at_ns < cutoffs.quarantined * 1e9)
        free = [one for one in old if not any(_holds(hold, _header(one)) for hold in self._holds.values())]
        return sorted(free, key=lambda one: one.header.at_ns)


def _header(record: PredictionRecord) -> dict[str, Any]:
    """What was set aside is held without regard to its subject, as in a database."""
    header = record.header
    names = ("model", "endpoint", "client")
    return {name: getattr(header, name) for name in names} | {"at": header.at_ns // 1000}


def _holds(hold: Hold, row: dict[str, Any]) -> bool:
    named = all(getattr(hold, n) in (None, row[n]) for n in ("model", "endpoint", "client", "subject") if n in row)
    after = hold.since is None or row["at"] >= hold.since * 1e6
    return named and after and (hold.until is None or row["at"] < hold.until * 1e6)
