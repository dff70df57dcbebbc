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
    id was taken by another payload (kept aside, never ignored)."""

    inserted: int
    known: int
    quarantined: int


class RecordSink(Protocol):
    """Where the drain puts records. Records and position are stored in one transaction: a record arrives once,
    whatever dies in between."""

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition) -> StoredBatch:
        """Stores a batch and the position behind it."""

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""

    def forget(self, file: str) -> None:
        """Drops the position of a file that is fully stored and deleted."""

    def signature(self, manifest: str) -> Signature | None:
        """The signature under this manifest digest, for decoding."""


class RecordFilter(msgspec.Struct, frozen=True):
    """Which records: every field that is set must match. Times are UNIX seconds, `since` inclusive, `until`
    exclusive. `status` is a status code, or a class as 2, 4, 5."""

    model: str | None = None
    version: str | None = None
    client: str | None = None
    endpoint: str | None = None
    status: int | None = None
    since: float | None = None
    until: float | None = None


class RecordPage(msgspec.Struct, frozen=True):
    """Newest first. `cursor` asks for the next page, None at the end."""

    records: tuple[dict[str, Any], ...]
    cursor: str | None


class RecordLog(Protocol):
    """Reading the prediction log. A record is a JSON-able dict with the names of the reference page: id, time,
    request_id, client, key_id, endpoint, model, version, arm, status, code, rows, inputs, outputs, latency
    {queue_us, compute_us, total_us}, sizes {request_bytes, answer_bytes}, flag."""

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page; InvalidRequestError("cursor_invalid")."""

    def count(self, filter: RecordFilter) -> int:
        """How many match."""

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first, in chunks; memory stays bounded."""
