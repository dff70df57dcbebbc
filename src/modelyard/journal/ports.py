"""What the journal needs from the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from modelyard.core.types import Signature
from modelyard.journal.record import PredictionRecord


class SpoolPosition(msgspec.Struct, frozen=True):
    """How far a spool file is in the database: the byte after the last stored frame."""

    file: str
    offset: int


class StoredBatch(msgspec.Struct, frozen=True):
    """What a store call did: `inserted` new rows, `known` identical ones that were there, `quarantined` rows whose
    id was taken by another payload (kept aside, never ignored), `erased` ones whose subject was erased meanwhile, which
    are not stored."""

    inserted: int
    known: int
    quarantined: int
    erased: int = 0


class RecordSink(Protocol):
    """Where records go. Records and position are stored in one transaction: a record arrives once,
    whatever dies in between."""

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        """Stores a batch and the position behind it; no position where the records come from no spool."""

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""

    def forget(self, file: str) -> None:
        """Drops the position of a file that is fully stored and deleted."""

    def signature(self, manifest: str) -> Signature | None:
        """The signature under this manifest digest, for decoding."""


HAS_OUTCOME, NO_OUTCOME, OUTCOME_IS = "has", "none", "="


class RecordFilter(msgspec.Struct, frozen=True):
    """Which records: every field that is set must match. Times are UNIX seconds, `since` inclusive, `until`
    exclusive. `status` is a status code, or a class as 2, 4, 5.

    `outcome` is HAS_OUTCOME, NO_OUTCOME, or OUTCOME_IS with the key of a value (journal.outcomes.outcome_key); a
    request matches if one of its items does. `items`: only requests that have items, and counts count those.
    """

    model: str | None = None
    version: str | None = None
    client: str | None = None
    endpoint: str | None = None
    status: int | None = None
    since: float | None = None
    until: float | None = None
    subject: str | None = None
    outcome: str | None = None
    items: bool = False


class RecordPage(msgspec.Struct, frozen=True):
    """Newest first. `cursor` asks for the next page, None at the end."""

    records: tuple[dict[str, Any], ...]
    cursor: str | None


class RecordLog(Protocol):
    """Reading the prediction log. A record is a JSON-able dict with the names of the reference page: id, time,
    request_id, client, key_id, endpoint, model, version, arm, status, code, rows, inputs, outputs, latency
    {queue_us, compute_us, total_us}, sizes {request_bytes, answer_bytes}, flag, surface, subject, outcomes: the latest
    of each item, a list of {item, value, at, revision}."""

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page; InvalidRequestError("cursor_invalid")."""

    def count(self, filter: RecordFilter) -> int:
        """How many match; with `filter.items`, how many items of theirs do."""

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first, in chunks; memory stays bounded."""


class QuarantineLog(Protocol):
    """Reading what the drain could not store as a record of its own: bytes that nobody understood (kept raw, `reason`
    is the record's flag), and records whose id another payload holds (`reason` is "id_taken")."""

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first, by model, version, client, endpoint and time: id, time, reason, raw_bytes (0 if a
        redaction policy forbade keeping them), client, endpoint, model, version, status, payload_sha256."""

    def raw(self, prediction_id: str) -> list[dict[str, Any]]:
        """All that was kept under this id: reason, payload_sha256, and `raw` (base64) or the `record` as it was
        decoded. NotFoundError("prediction_not_found") if nothing was."""


def items_of(rows: int, status: int) -> int:
    """How many items a request has: its rows; one where a model takes no rows; none where it was refused unread."""
    return rows or int(status < 400)


class Target(msgspec.Struct, frozen=True):
    """What an outcome can be given to: whose request it was, to which endpoint, and how many items it has."""

    client: str
    endpoint: str
    items: int


class Outcome(msgspec.Struct, frozen=True):
    """What came true of one item: a JSON value, `at` in UNIX seconds, and who says so."""

    prediction_id: str
    item: int
    value: Any
    at: float
    client: str
    key_id: str


class StoredOutcome(msgspec.Struct, frozen=True):
    """An outcome as it is on record. `created` False: this very value was the latest already. `joined` False: its
    request is still on its way into the log."""

    prediction_id: str
    item: int
    value: Any
    at: float
    revision: int
    created: bool
    joined: bool


class OutcomeStore(Protocol):
    """Outcomes by item. Another value for the same item is a new revision; the ones before stay on record, because
    decisions were measured by them. An outcome may come before its record: it is joined when the record is stored."""

    def put(self, outcomes: Sequence[Outcome], recorded_at: float) -> list[StoredOutcome]:
        """Stores all of them, in order; `recorded_at` in UNIX seconds."""

    def targets(self, ids: Sequence[str]) -> dict[str, Target]:
        """Those of the requests that are in the log."""

    def history(self, prediction_id: str) -> list[dict[str, Any]]:
        """All revisions, oldest first: item, value, at, revision, recorded_at, client, key_id."""


KEEP_ANSWERS_S = 24 * 3600.0
"""How long an Idempotency-Key names its first answer."""


class KeptAnswer(msgspec.Struct, frozen=True):
    """An answer as it was logged: uncompressed, `header_length` None where it is plain JSON."""

    prediction_id: str
    status: int
    version: str
    header_length: int | None
    body: bytes


class AnswerIndex(Protocol):
    """Answers under (client, Idempotency-Key), one index for all workers of a host."""

    def begin(self, client: str, key: str, digest: bytes, prediction_id: str) -> KeptAnswer | None:
        """Takes the key for this prediction (None), or gives the answer to the same request. `digest` stands for the
        request. ConflictError("idempotency_in_use" | "idempotency_mismatch"), UnavailableError("store_unavailable")."""

    def finish(self, client: str, key: str, answer: KeptAnswer) -> None:
        """Keeps the answer of a prediction that took the key; a status of 500 or more, or 0 (the
        caller left before anything ran), lets the key go.
        UnavailableError("store_unavailable")."""
