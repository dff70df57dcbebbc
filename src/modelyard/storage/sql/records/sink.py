"""Where the drain puts records: each once, with the position behind it, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from modelyard.core.types import Signature
from modelyard.journal.ports import SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.storage.prediction_row import AT, COLUMNS, to_row
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.analytics.pending import note_changes
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.records.erasure import without_erased
from modelyard.storage.sql.records.outcomes import join_waiting
from modelyard.storage.sql.registry import read_manifest

_P = schema.predictions.c
_IDS_PER_QUERY = 500
_MAX_SIGNATURES = 1024
ID_TAKEN = "id_taken"
"""Why a record is kept aside: another payload holds its id."""


class SqlRecordSink:
    """journal.ports.RecordSink over a database.

    The usual batch is new to the last record, and costs one statement; only a batch that
    meets known ids pays for looking at them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._append = database.dialect.append(schema.predictions, COLUMNS)
        self._signatures: dict[str, Signature] = {}

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        """Stores a batch and the position behind it, in one transaction."""
        with self._database.append() as connection:
            stored = without_erased(connection, records)
            rows = list(map(to_row, stored))
            inserted = self._append(connection, rows) if rows else 0
            quarantined = 0
            if inserted < len(rows):
                quarantined = _quarantine(connection, stored)
            note_changes(connection, [row[AT] for row in rows])
            join_waiting(connection)
            if position is not None:
                _set_position(connection, position)
        return StoredBatch(inserted, len(rows) - inserted - quarantined, quarantined, len(records) - len(rows))

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""
        mine = select(schema.spool_positions.c.offset).where(schema.spool_positions.c.file == file)
        with self._database.read() as connection:
            return connection.scalar(mine) or 0

    def forget(self, file: str) -> None:
        """Drops the position of a file."""
        with self._database.append() as connection:
            connection.execute(delete(schema.spool_positions).where(schema.spool_positions.c.file == file))

    def signature(self, manifest: str) -> Signature | None:
        """The signature under this manifest digest; manifests are immutable, so an answer is remembered."""
        known = self._signatures.get(manifest)
        if known is None:
            with self._database.read() as connection:
                found = read_manifest(connection, manifest)
            if found is None:
                return None
            if len(self._signatures) >= _MAX_SIGNATURES:
                self._signatures.clear()
            known = self._signatures[manifest] = found.signature
        return known


QUARANTINE_COLUMNS = ("id", "payload_sha256", "at", "client", "endpoint", "model", "version", "status")
"""What a quarantined record has in columns of its own, for filters."""


def _set_position(connection: Connection, position: SpoolPosition) -> None:
    mine = schema.spool_positions.c.file == position.file
    moved = connection.execute(update(schema.spool_positions).where(mine).values(offset=position.offset))
    if moved.rowcount == 0:
        connection.execute(insert(schema.spool_positions).values(file=position.file, offset=position.offset))


def _quarantine(connection: Connection, records: Sequence[PredictionRecord]) -> int:
    """Keeps aside the records whose id another payload holds; how many those are."""
    stored = _stored_payloads(connection, [record.header.id for record in records])
    foreign = [record for record in records if stored[record.header.id] != record.payload_sha256]
    if foreign:
        connection.execute(dialects.insert_new(connection, schema.quarantined_predictions), list(map(_aside, foreign)))
    return len(foreign)


def _aside(record: PredictionRecord) -> dict[str, Any]:
    row = dict(zip(COLUMNS, to_row(record), strict=True))
    kept = {name: row[name] for name in QUARANTINE_COLUMNS}
    return {**kept, "reason": ID_TAKEN, "raw_bytes": len(record.raw or b""), "record": _packed(record)}


def _packed(record: PredictionRecord) -> bytes:
    return msgspec.msgpack.encode((record.header, *to_row(record)))


def _stored_payloads(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    columns = select(schema.predictions.c.id, schema.predictions.c.payload_sha256)
    stored: dict[str, str] = {}
    for start in range(0, len(ids), _IDS_PER_QUERY):
        some = ids[start : start + _IDS_PER_QUERY]
        stored.update((row[0], row[1]) for row in connection.execute(columns.where(_P.id.in_(some))))
    return stored
