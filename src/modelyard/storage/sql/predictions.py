"""The prediction log in the database: where the drain puts records, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, CursorResult, Select, and_, delete, func, insert, or_, select, update

from modelyard.core.types import Signature
from modelyard.journal.ports import RecordFilter, RecordPage, SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.storage import refusals
from modelyard.storage.prediction_row import (
    AT,
    COLUMNS,
    READ_COLUMNS,
    decode_cursor,
    encode_cursor,
    microseconds,
    status_range,
    to_record,
    to_row,
)
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.registry import read_manifest

_P = schema.predictions.c
_FIRST_FAILURE = 400
_IDS_PER_QUERY = 500
_MAX_SIGNATURES = 1024


class SqlRecordSink:
    """journal.ports.RecordSink over a database.

    The usual batch is new to the last record, and costs one prepared statement run over tuples; only a batch that
    meets known ids pays for looking at them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        statement = dialects.insert_new(schema.predictions).compile(
            dialect=database.engine.dialect, column_keys=COLUMNS
        )
        assert getattr(statement, "positiontup", None) == COLUMNS, "rows are tuples in the order of COLUMNS"
        self._insert = str(statement)
        self._signatures: dict[str, Signature] = {}

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition) -> StoredBatch:
        """Stores a batch and the position behind it, in one transaction."""
        rows = list(map(to_row, records))
        with self._database.write() as connection:
            inserted = self._insert_rows(connection, rows)
            quarantined = 0
            if inserted < len(rows):
                quarantined = _quarantine(connection, records)
            _set_position(connection, position)
        return StoredBatch(inserted, len(rows) - inserted - quarantined, quarantined)

    def _insert_rows(self, connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        if not rows:
            return 0
        result: CursorResult[Any] = connection.exec_driver_sql(
            self._insert, rows, execution_options={"preserve_rowcount": True}
        )
        return result.rowcount

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""
        mine = select(schema.spool_positions.c.offset).where(schema.spool_positions.c.file == file)
        with self._database.read() as connection:
            return connection.scalar(mine) or 0

    def forget(self, file: str) -> None:
        """Drops the position of a file."""
        with self._database.write() as connection:
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


def _set_position(connection: Connection, position: SpoolPosition) -> None:
    mine = schema.spool_positions.c.file == position.file
    moved = connection.execute(update(schema.spool_positions).where(mine).values(offset=position.offset))
    if moved.rowcount == 0:
        connection.execute(insert(schema.spool_positions).values(file=position.file, offset=position.offset))


def _quarantine(connection: Connection, records: Sequence[PredictionRecord]) -> int:
    """Keeps aside the records whose id another payload holds; how many those are."""
    stored = _stored_payloads(connection, [record.header.id for record in records])
    foreign = [record for record in records if stored[record.header.id] != record.payload_sha256]
    rows = [
        {"id": record.header.id, "payload_sha256": record.payload_sha256, "record": _packed(record)}
        for record in foreign
    ]
    if rows:
        connection.execute(dialects.insert_new(schema.quarantined_predictions), rows)
    return len(rows)


def _packed(record: PredictionRecord) -> bytes:
    return msgspec.msgpack.encode((record.header, *to_row(record)))


def _stored_payloads(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    columns = select(schema.predictions.c.id, schema.predictions.c.payload_sha256)
    stored: dict[str, str] = {}
    for start in range(0, len(ids), _IDS_PER_QUERY):
        some = ids[start : start + _IDS_PER_QUERY]
        stored.update((row[0], row[1]) for row in connection.execute(columns.where(_P.id.in_(some))))
    return stored


class SqlRecordLog:
    """journal.ports.RecordLog over a database. Pages by key, so page 1000 costs what page 1 costs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        wanted = _rows().where(*_conditions(filter)).order_by(_P.at.desc(), _P.id.desc()).limit(limit + 1)
        if cursor is not None:
            at, prediction_id = decode_cursor(cursor)
            wanted = wanted.where(_P.at <= at, or_(_P.at < at, _P.id < prediction_id))
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        following = encode_cursor(rows[limit - 1][AT], rows[limit - 1][0]) if len(rows) > limit else None
        return RecordPage(tuple(map(to_record, rows[:limit])), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        wanted = select(func.count()).select_from(schema.predictions).where(*_conditions(filter))
        with self._database.read() as connection:
            return int(connection.execute(wanted).scalar_one())

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        with self._database.read() as connection:
            row = connection.execute(_rows().where(_P.id == prediction_id)).one_or_none()
        if row is None:
            raise refusals.prediction_not_found(prediction_id)
        return to_record(row)

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first. Every chunk is a transaction of its own: one long one would keep the WAL
        from being copied back, so records that arrive meanwhile may or may not be in."""
        conditions = _conditions(filter)
        behind: tuple[ColumnElement[bool], ...] = ()
        while True:
            wanted = _rows().where(*conditions, *behind).order_by(_P.at, _P.id).limit(chunk)
            with self._database.read() as connection:
                rows = connection.execute(wanted).all()
            if rows:
                yield [to_record(row) for row in rows]
            if len(rows) < chunk:
                return
            at, prediction_id = rows[-1][AT], rows[-1][0]
            behind = (_P.at >= at, or_(_P.at > at, _P.id > prediction_id))


def _rows() -> Select[Any]:
    return select(*(_P[name] for name in READ_COLUMNS))


def _conditions(wanted: RecordFilter) -> list[ColumnElement[bool]]:
    names = ((_P.model, wanted.model), (_P.version, wanted.version), (_P.client, wanted.client))
    conditions = [column == value for column, value in (*names, (_P.endpoint, wanted.endpoint)) if value is not None]
    if wanted.status is not None:
        low, high = status_range(wanted.status)
        conditions.append(_P.status == low if low == high else and_(_P.status >= low, _P.status <= high))
        if low >= _FIRST_FAILURE:
            conditions.append(schema.FAILED)
    if wanted.since is not None:
        conditions.append(_P.at >= microseconds(wanted.since, "since"))
    if wanted.until is not None:
        conditions.append(_P.at < microseconds(wanted.until, "until"))
    return conditions
