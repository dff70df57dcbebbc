"""Records on their way to the archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.lease import Fence
from modelyard.retention.ports import Cutoffs, Deleted, Partition
from modelyard.storage.prediction_row import AT, READ_COLUMNS, microseconds, time_text, to_record
from modelyard.storage.sql import schema
from modelyard.storage.sql.analytics.pending import note_changes
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence
from modelyard.storage.sql.records.outcomes import latest_outcomes
from modelyard.storage.sql.records.retention import IDS_PER_STATEMENT, delete_records, held_by, read_holds

_P = schema.predictions.c
_ROW = tuple(_P[name] for name in READ_COLUMNS)


class SqlLeavingRecords:
    """retention.ports.LeavingRecords over a database."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def next_partition(self, cutoffs: Cutoffs) -> Partition | None:
        """That of the oldest record that is due."""
        with self._database.survey() as connection:
            free = ~held_by(read_holds(connection), schema.predictions)
            wanted = select(_P.at, _P.endpoint).where(_older(cutoffs), free).order_by(_P.at, _P.id).limit(1)
            row = connection.execute(wanted).first()
        return None if row is None else Partition(time_text(row.at)[:10], row.endpoint)

    def leaving(self, cutoffs: Cutoffs, partition: Partition, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """Its records that are due, oldest first; each chunk is a transaction of its own."""
        place: tuple[int, str] | None = None
        while True:
            behind = () if place is None else (_behind(*place),)
            with self._database.survey() as connection:
                free = ~held_by(read_holds(connection), schema.predictions)
                wanted = select(*_ROW).where(_of(partition), _older(cutoffs), free, *behind)
                rows = connection.execute(wanted.order_by(_P.at, _P.id).limit(chunk)).all()
                outcomes = latest_outcomes(connection, [row[0] for row in rows])
            if rows:
                yield [to_record(row, outcomes.get(row[0], ())) for row in rows]
            if len(rows) < chunk:
                return
            place = (rows[-1][AT], rows[-1][0])

    def delete_archived(self, cutoffs: Cutoffs, ids: Sequence[str], file: str, fence: Fence | None = None) -> Deleted:
        """Deletes those that are still due, with their certificate."""
        with self._database.write(holds_appends=True) as connection:
            check_fence(connection, fence)
            free = ~held_by(read_holds(connection), schema.predictions)
            due = select(_P.id, _P.at).where(_older(cutoffs), free)
            rows = [
                row
                for start in range(0, len(ids), IDS_PER_STATEMENT)
                for row in connection.execute(due.where(_P.id.in_(ids[start : start + IDS_PER_STATEMENT])))
            ]
            gone = [row.id for row in rows]
            outcomes = delete_records(connection, gone)
            note_changes(connection, [row.at for row in rows])
            if gone:
                said = {
                    "before": time_text(microseconds(cutoffs.predictions, "at")), "predictions": len(gone),
                    "outcomes": outcomes, "archived": file,
                }  # fmt: skip
                self._trail.record(connection, AuditAction.RETENTION_DELETE, "retention:age", None, said)
        return Deleted(len(gone), outcomes, ids=tuple(gone))


def _older(cutoffs: Cutoffs) -> ColumnElement[bool]:
    return _P.at < microseconds(cutoffs.predictions, "at")


def _of(partition: Partition) -> ColumnElement[bool]:
    day = datetime.fromisoformat(partition.day).replace(tzinfo=UTC)
    low, high = (microseconds(at.timestamp(), "at") for at in (day, day + timedelta(days=1)))
    return and_(_P.endpoint == partition.endpoint, _P.at >= low, _P.at < high)


def _behind(at: int, prediction_id: str) -> ColumnElement[bool]:
    return and_(_P.at >= at, or_(_P.at > at, _P.id > prediction_id))
