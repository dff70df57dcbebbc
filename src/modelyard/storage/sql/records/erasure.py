"""Deletion by subject. The subject's own text stays nowhere: certificates and the list of erasures have a salted
digest, and the database overwrites what it deletes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, true

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InternalError
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Deleted, Found, Hold, holds_about, keeps
from modelyard.storage.prediction_row import microseconds, time_text
from modelyard.storage.sql import schema
from modelyard.storage.sql.analytics.pending import note_changes
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.records.quarantine import unpacked
from modelyard.storage.sql.records.retention import delete_records, held_by, read_holds

_P = schema.predictions.c
_O = schema.outcomes.c
_Q = schema.quarantined_predictions.c
_E = schema.erasures.c
_SALT_BYTES = 16
_PER_PAGE = 500


class SqlErasureStore:
    """retention.ports.ErasureStore over a database."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def find(self, subject: str) -> Found:
        """What is there."""
        with self._database.survey() as connection:
            mine = and_(_P.subject == subject, schema.HAS_SUBJECT)
            holds = read_holds(connection)
            kept = held_by(holds, schema.predictions)
            counted = select(func.count()).select_from(schema.predictions)
            aside = len(_set_aside(connection, subject, _free(holds, subject)))
            held_aside = len(_set_aside(connection, subject)) - aside if holds else 0
            return Found(
                int(connection.execute(counted.where(mine, ~kept)).scalar_one()),
                int(connection.execute(counted.where(mine, kept)).scalar_one()) + held_aside,
                aside,
            )

    def register(self, subject: str, at: float) -> str:
        """What comes out of a spool later, and is older than `at`, is not stored."""
        erasure_id, salt = secrets.token_hex(6), secrets.token_bytes(_SALT_BYTES)
        at_us, digest = microseconds(at, "at"), _digest(salt, subject)
        with self._database.write(holds_appends=True) as connection:
            row = insert(schema.erasures).values(id=erasure_id, at=at_us, salt=salt, digest=digest)
            connection.execute(row)
            shown = {"before": time_text(at_us), "digest": digest.hex(), "salt": salt.hex()}
            self._trail.record(connection, AuditAction.SUBJECT_ERASE, f"erasure:{erasure_id}", None, shown)
        return erasure_id

    def erase(self, erasure_id: str, subject: str, most: int) -> Deleted:
        """Deletes one batch, with its certificate."""
        with self._database.write(holds_appends=True) as connection:
            before = connection.scalar(select(_E.at).where(_E.id == erasure_id))
            if before is None:
                raise InternalError("internal", "The erasure was not registered.")
            holds = read_holds(connection)
            kept = held_by(holds, schema.predictions)
            wanted = select(_P.id, _P.at).where(_P.subject == subject, schema.HAS_SUBJECT, _P.at <= before, ~kept)
            rows = connection.execute(wanted.order_by(_P.at).limit(most)).all()
            ids = [row.id for row in rows]
            outcomes = delete_records(connection, ids)
            note_changes(connection, [row.at for row in rows])
            aside = _set_aside(connection, subject, _free(holds, subject))
            for one, payload in aside:
                connection.execute(
                    delete(schema.quarantined_predictions).where(_Q.id == one, _Q.payload_sha256 == payload)
                )
            if ids or aside:
                gone = {"predictions": len(ids), "outcomes": outcomes, "quarantined": len(aside)}
                self._trail.record(connection, AuditAction.RETENTION_DELETE, f"erasure:{erasure_id}", None, gone)
        last = rows[-1].at / 1e6 if len(rows) == most else None
        if last is None:
            self._database.forget_past()
        return Deleted(len(ids), outcomes, len(aside), last, tuple(ids))

    def certify(self, erasure_id: str, gone: dict[str, Any]) -> None:
        """Writes the certificate of what was deleted elsewhere."""
        with self._database.write() as connection:
            self._trail.record(connection, AuditAction.RETENTION_DELETE, f"erasure:{erasure_id}", None, gone)


def _digest(salt: bytes, subject: str) -> bytes:
    return hashlib.sha256(salt + subject.encode("utf-8", "surrogatepass")).digest()


def _free(holds: Sequence[Hold], subject: str) -> ColumnElement[bool]:
    """What was set aside and, if it is about this subject, no hold keeps."""
    return ~held_by(holds_about(holds, subject), schema.quarantined_predictions)


def _set_aside(connection: Connection, subject: str, free: ColumnElement[bool] | None = None) -> list[tuple[str, str]]:
    """Keys of what was set aside about a subject. It is packed, and there is little of it: all of it is read."""
    found: list[tuple[str, str]] = []
    place = ("", "")
    while True:
        wanted = select(_Q.id, _Q.payload_sha256, _Q.record).order_by(_Q.id, _Q.payload_sha256).limit(_PER_PAGE)
        behind = (_Q.id > place[0]) | and_(_Q.id == place[0], _Q.payload_sha256 > place[1])
        rows = connection.execute(wanted.where(behind, true() if free is None else free)).all()
        found += [(row[0], row[1]) for row in rows if unpacked(row[2]).get("subject") == subject]
        if len(rows) < _PER_PAGE:
            return found
        place = (rows[-1][0], rows[-1][1])


def without_erased(connection: Connection, records: Sequence[PredictionRecord]) -> list[PredictionRecord]:
    """The records without those whose subject was erased after they were made, and that no hold keeps: they waited in a
    spool meanwhile."""
    named = [record.header.at_ns // 1000 for record in records if record.header.subject]
    if not named:
        return list(records)
    wanted = select(_E.at, _E.salt, _E.digest).where(_E.at >= min(named))
    erasures = connection.execute(wanted).all()
    if not erasures:
        return list(records)
    hit = [record for record in records if any(_hits(record, *erasure) for erasure in erasures)]
    holds = read_holds(connection) if hit else []
    erased = {id(record) for record in hit if not keeps(holds, record.header)}
    kept = [record for record in records if id(record) not in erased]
    if len(kept) < len(records):
        stored = {record.header.id for record in kept}
        gone = [record.header.id for record in records if record.header.id not in stored]
        connection.execute(delete(schema.outcomes).where(_O.prediction_id.in_(gone)))
    return kept


def _hits(record: PredictionRecord, at: int, salt: bytes, digest: bytes) -> bool:
    header = record.header
    return bool(header.subject) and header.at_ns // 1000 <= at and _digest(salt, header.subject) == digest
