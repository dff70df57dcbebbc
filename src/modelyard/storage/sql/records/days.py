"""A day of the prediction log that leaves as a whole, where the database keeps days apart."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from modelyard.audit.vocabulary import AuditAction
from modelyard.retention.ports import Cutoffs, Deleted
from modelyard.storage.prediction_row import microseconds, time_text
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.analytics.pending import note_changes
from modelyard.storage.sql.audit.trail import AuditTrail

_P = schema.predictions.c
_O = schema.outcomes.c
_MINUTE_US = 60_000_000
_LOOKED_ALONG = "FORCE INDEX (ix_predictions_at)"
"""Of one partition either way; MySQL would go along the key, which is to read all of every record."""


def delete_day(
    connection: Connection,
    trail: AuditTrail,
    cutoffs: Cutoffs,
    kept: ColumnElement[bool],
    holds: int,
    records: bool = True,
) -> Deleted | None:
    """Deletes the oldest day that is due to its last record and of which nothing is `kept` by one of the `holds`, with
    its outcomes and its certificate; None if there is none. Days without a record go on the way; without `records`
    they alone do."""
    cutoff_us = microseconds(cutoffs.predictions, "at")
    for day in dialects.days(connection):
        if day.over_s > cutoffs.predictions:
            return None
        mine = and_(_P.id >= day.first, _P.id < day.end)
        if connection.execute(select(_P.id).where(mine, kept).limit(1)).first() is not None:
            continue
        looked = select(func.count(), func.min(_P.at), func.max(_P.at)).where(mine)
        looked = looked.with_hint(schema.predictions, _LOOKED_ALONG, "mysql")
        count, first, last = connection.execute(looked).one()
        if count and (not records or last >= cutoff_us):  # later than its id: its worker's clock was wrong
            continue
        given = and_(_O.prediction_id >= day.first, _O.prediction_id < day.end, _O.prediction_at.is_not(None))
        outcomes = connection.execute(delete(schema.outcomes).where(given)).rowcount if count else 0
        dialects.drop_day(connection, day)
        if count:
            note_changes(connection, (*range(first, last, _MINUTE_US), last))
            shown = {
                "before": time_text(cutoff_us), "partition": day.name, "predictions": count, "outcomes": outcomes,
                "first": time_text(first), "last": time_text(last), "holds": holds,
            }  # fmt: skip
            trail.record(connection, AuditAction.RETENTION_DELETE, "retention:age", None, shown)
            return Deleted(count, outcomes)
    return None
