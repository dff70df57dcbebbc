"""Records that leave: by age, and what a legal hold keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, false, func, insert, or_, select, true, update

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.lease import Fence
from modelyard.retention.ports import Cutoffs, Deleted, Due, Hold
from modelyard.storage import refusals
from modelyard.storage.prediction_row import microseconds, time_text
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.analytics.pending import note_changes
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence
from modelyard.storage.sql.records.days import delete_day

_P = schema.predictions.c
_O = schema.outcomes.c
_Q = schema.quarantined_predictions.c
_H = schema.legal_holds.c
_S = schema.retention_state.c
IDS_PER_STATEMENT = 500
_NAMES = ("model", "endpoint", "client", "subject")


class SqlRetentionStore:
    """retention.ports.RetentionStore over a database."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def due(self, cutoffs: Cutoffs) -> Due:
        """What would leave now."""
        with self._database.survey() as connection:
            holds = read_holds(connection)
            old, kept = _older(cutoffs), held_by(holds, schema.predictions)
            set_aside = and_(_aside(cutoffs), ~held_by(holds, schema.quarantined_predictions))
            return Due(
                predictions=_count(connection, schema.predictions, and_(old, ~kept)),
                held=_count(connection, schema.predictions, and_(old, kept)) if holds else 0,
                quarantined=_count(connection, schema.quarantined_predictions, set_aside),
                stored=_count(connection, schema.predictions, true()),
            )

    def delete(
        self, cutoffs: Cutoffs, since: float, most: int, fence: Fence | None = None, records: bool = True
    ) -> Deleted:
        """Deletes one batch, with its certificate."""
        with self._database.write(holds_appends=True) as connection:
            check_fence(connection, fence)
            deleted = self._delete(connection, cutoffs, since, most, records)
            leaving = dialects.are_leaving(connection)
        if leaving:
            with self._database.write(holds_appends=True):
                """They go before it begins."""
        return deleted

    def _delete(self, connection: Connection, cutoffs: Cutoffs, since: float, most: int, records: bool) -> Deleted:
        holds = read_holds(connection)
        kept = held_by(holds, schema.predictions)
        if day := delete_day(connection, self._trail, cutoffs, kept, len(holds), records):
            return msgspec.structs.replace(day, at=since)
        wanted = select(_P.id, _P.at).where(_P.at >= _us(since), _older(cutoffs), ~kept).order_by(_P.at, _P.id)
        rows = connection.execute(wanted.limit(most + 1)).all() if records else []
        ids = [row.id for row in rows[:most]]
        outcomes = delete_records(connection, ids)
        note_changes(connection, [row.at for row in rows[:most]])
        outcomes += _delete_orphans(connection, cutoffs)
        quarantined, more = _delete_aside(connection, cutoffs, holds, most)
        if ids or outcomes or quarantined:
            self._trail.record(
                connection,
                AuditAction.RETENTION_DELETE,
                "retention:age",
                None,
                {
                    "before": time_text(_us(cutoffs.predictions)),
                    "quarantined_before": time_text(_us(cutoffs.quarantined)),
                    "predictions": len(ids), "outcomes": outcomes, "quarantined": quarantined,
                    "first": time_text(rows[0].at) if ids else None,
                    "last": time_text(rows[len(ids) - 1].at) if ids else None,
                    "holds": len(holds),
                },
            )  # fmt: skip
        if len(rows) > most:
            return Deleted(len(ids), outcomes, quarantined, rows[most - 1].at / 1e6, tuple(ids))
        return Deleted(len(ids), outcomes, quarantined, since if more else None, tuple(ids))

    def swept(self) -> float | None:
        """When the last sweep ended."""
        with self._database.read() as connection:
            return connection.scalar(select(_S.swept_at))

    def mark_swept(self, at: float) -> None:
        """A sweep ended; the days to come are made ready."""
        with self._database.write() as connection:
            dialects.make_days(connection, at)
            if connection.execute(update(schema.retention_state).values(swept_at=at)).rowcount == 0:
                connection.execute(insert(schema.retention_state).values(id=1, swept_at=at))


class SqlHoldStore:
    """retention.ports.HoldStore over a database."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def add(self, hold: Hold) -> None:
        """From now on this is held: alone, so that a day which is leaving has gone before."""
        with self._database.write(holds_appends=True) as connection:
            connection.execute(insert(schema.legal_holds).values(**{name: getattr(hold, name) for name in _FIELDS}))
            self._trail.record(connection, AuditAction.HOLD_CREATE, f"hold:{hold.id}", None, _shown(hold))

    def holds(self) -> Sequence[Hold]:
        """Those in force, oldest first."""
        with self._database.read() as connection:
            return read_holds(connection)

    def release(self, hold_id: str) -> Hold:
        """Ends one."""
        with self._database.write() as connection:
            hold = next((one for one in read_holds(connection) if one.id == hold_id), None)
            if hold is None:
                raise refusals.hold_not_found(hold_id)
            connection.execute(delete(schema.legal_holds).where(_H.id == hold_id))
            self._trail.record(connection, AuditAction.HOLD_RELEASE, f"hold:{hold_id}", _shown(hold), None)
        return hold


_FIELDS = Hold.__struct_fields__


def read_holds(connection: Connection) -> list[Hold]:
    """All holds in force, oldest first."""
    rows = connection.execute(select(*(_H[name] for name in _FIELDS)).order_by(_H.at, _H.id))
    return [Hold(*row) for row in rows]


def held_by(holds: Sequence[Hold], table: Table) -> ColumnElement[bool]:
    """Whether a row is held. What was set aside has no subject in a column of its own: a hold for one subject keeps
    all of it that the hold's other fields match."""
    return or_(false(), *(_matches(hold, table) for hold in holds))


def _matches(hold: Hold, table: Table) -> ColumnElement[bool]:
    named = ((name, getattr(hold, name)) for name in _NAMES if name in table.c)
    conditions: list[ColumnElement[bool]] = [table.c[name] == value for name, value in named if value is not None]
    if hold.since is not None:
        conditions.append(table.c.at >= _us(hold.since))
    if hold.until is not None:
        conditions.append(table.c.at < _us(hold.until))
    return and_(true(), *conditions)


def delete_records(connection: Connection, ids: Sequence[str]) -> int:
    """Deletes records and their outcomes; how many outcomes that were."""
    outcomes = 0
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        some = ids[start : start + IDS_PER_STATEMENT]
        outcomes += connection.execute(delete(schema.outcomes).where(_O.prediction_id.in_(some))).rowcount
        connection.execute(delete(schema.predictions).where(_P.id.in_(some)))
    return outcomes


def _delete_orphans(connection: Connection, cutoffs: Cutoffs) -> int:
    """Outcomes whose record never came: they go by the day on which they were given."""
    orphaned = and_(schema.WAITING, _O.recorded_at < _us(cutoffs.predictions))
    if connection.execute(select(_O.item).where(orphaned).limit(1)).first() is None:
        return 0
    return connection.execute(delete(schema.outcomes).where(orphaned)).rowcount


def _delete_aside(connection: Connection, cutoffs: Cutoffs, holds: Sequence[Hold], most: int) -> tuple[int, bool]:
    kept = held_by(holds, schema.quarantined_predictions)
    wanted = select(_Q.id, _Q.payload_sha256).where(_aside(cutoffs), ~kept).order_by(_Q.at).limit(most + 1)
    rows = connection.execute(wanted).all()
    for one, payload in rows[:most]:
        connection.execute(delete(schema.quarantined_predictions).where(_Q.id == one, _Q.payload_sha256 == payload))
    return len(rows[:most]), len(rows) > most


def _older(cutoffs: Cutoffs) -> ColumnElement[bool]:
    return _P.at < _us(cutoffs.predictions)


def _aside(cutoffs: Cutoffs) -> ColumnElement[bool]:
    return _Q.at < _us(cutoffs.quarantined)


def _us(seconds: float) -> int:
    return microseconds(seconds, "at")


def _count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())


def _shown(hold: Hold) -> dict[str, Any]:
    times = {name: None if (at := getattr(hold, name)) is None else time_text(_us(at)) for name in ("since", "until")}
    named = {name: getattr(hold, name) for name in _NAMES}
    return {"reason": hold.reason, **{name: value for name, value in (named | times).items() if value is not None}}
