"""Reading what is no record like the others: bytes kept raw, and records whose id was taken."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, or_, select

from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.ports import RecordFilter, RecordPage
from modelyard.storage import refusals
from modelyard.storage.prediction_row import COLUMNS, READ_COLUMNS, microseconds, time_text, to_record
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

_P = schema.predictions.c
_Q = schema.quarantined_predictions.c
_NAMES = ("id", "time", "reason", "raw_bytes", "client", "endpoint", "model", "version", "status", "payload_sha256")


class SqlQuarantineLog:
    """journal.ports.QuarantineLog over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first, of both kinds together."""
        behind = None if cursor is None else decode_cursor(cursor)
        with self._database.read() as connection:
            both = [
                tuple(row)
                for wanted in (_flagged(), _taken())
                for row in connection.execute(_narrowed(*wanted, filter, behind).limit(limit + 1))
            ]
        both.sort(key=_place, reverse=True)
        found = tuple(dict(zip(_NAMES, (row[0], time_text(row[1]), *row[2:]), strict=True)) for row in both[:limit])
        return RecordPage(found, encode_cursor(*_place(both[limit - 1])) if len(both) > limit else None)

    def raw(self, prediction_id: str) -> list[dict[str, Any]]:
        """All that was kept under this id."""
        with self._database.read() as connection:
            found = [*_kept_raw(connection, prediction_id), *_kept_aside(connection, prediction_id)]
        if not found:
            raise refusals.prediction_not_found(prediction_id)
        return found


def _flagged() -> tuple[Select[Any], Table]:
    size = func.coalesce(func.length(_P.raw), 0)
    columns = (_P.client, _P.endpoint, _P.model, _P.version, _P.status, _P.payload_sha256)
    return select(_P.id, _P.at, _P.flag, size, *columns).where(schema.FLAGGED), schema.predictions


def _taken() -> tuple[Select[Any], Table]:
    columns = (_Q.client, _Q.endpoint, _Q.model, _Q.version, _Q.status, _Q.payload_sha256)
    return select(_Q.id, _Q.at, _Q.reason, _Q.raw_bytes, *columns), schema.quarantined_predictions


def _place(row: Any) -> tuple[int, str]:
    """Where a row stands; two rows may share an id."""
    return row[1], f"{row[0]}/{row[-1]}"


def _narrowed(wanted: Select[Any], table: Table, asked: RecordFilter, behind: tuple[int, str] | None) -> Select[Any]:
    at, one, payload = table.c.at, table.c.id, table.c.payload_sha256
    names = ("model", "version", "client", "endpoint")
    # Not the bare column: an index of records by that name would lead to all of them, where few are kept raw.
    conditions: list[ColumnElement[bool]] = [
        table.c[name].concat("") == getattr(asked, name) for name in names if getattr(asked, name) is not None
    ]
    if asked.since is not None:
        conditions.append(at >= microseconds(asked.since, "since"))
    if asked.until is not None:
        conditions.append(at < microseconds(asked.until, "until"))
    if behind is not None:
        last, _, digest = behind[1].partition("/")
        older = or_(at < behind[0], one < last, and_(one == last, payload < digest))
        conditions.append(and_(at <= behind[0], older))
    return wanted.where(*conditions).order_by(at.desc(), one.desc(), payload.desc())


def _kept_raw(connection: Connection, prediction_id: str) -> list[dict[str, Any]]:
    wanted = select(_P.flag, _P.payload_sha256, _P.raw).where(_P.id == prediction_id, _P.raw.is_not(None))
    return [
        {"reason": row.flag, "payload_sha256": row.payload_sha256, "raw": base64.b64encode(row.raw).decode()}
        for row in connection.execute(wanted)
    ]


def _kept_aside(connection: Connection, prediction_id: str) -> list[dict[str, Any]]:
    wanted = select(_Q.reason, _Q.payload_sha256, _Q.record).where(_Q.id == prediction_id).order_by(_Q.payload_sha256)
    return [
        {"reason": row.reason, "payload_sha256": row.payload_sha256, "record": unpacked(row.record)}
        for row in connection.execute(wanted)
    ]


def unpacked(record: bytes) -> dict[str, Any]:
    """A record that was put aside, as readers get it; its raw bytes, if it has any, as base64."""
    _header, *row = msgspec.msgpack.decode(record)
    raw = row[COLUMNS.index("raw")]
    shown = {} if raw is None else {"raw": base64.b64encode(raw).decode()}
    return to_record(row[: len(READ_COLUMNS)]) | shown
