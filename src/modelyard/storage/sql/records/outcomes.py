"""Outcomes in the database: one row per revision, the latest of an item marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Select, and_, exists, insert, select, update

from modelyard.journal.outcomes import outcome_key, value_text
from modelyard.journal.ports import Outcome, StoredOutcome, Target, items_of
from modelyard.storage.prediction_row import microseconds, time_text
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

_P = schema.predictions.c
_O = schema.outcomes.c
_PER_TRANSACTION = 500
"""Outcomes stored at once; the drain waits no longer than these take."""
_IDS_PER_QUERY = 500


class SqlOutcomeStore:
    """journal.ports.OutcomeStore over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, outcomes: Sequence[Outcome], recorded_at: float) -> list[StoredOutcome]:
        """Stores all of them, in order, a few hundred in a transaction."""
        stored: list[StoredOutcome] = []
        for some in _parts(outcomes, _PER_TRANSACTION):
            # A record that is stored meanwhile would neither be found here nor find its outcomes.
            with self._database.write(holds_appends=True) as connection:
                stored += [_put(connection, outcome, recorded_at) for outcome in some]
        return stored

    def targets(self, ids: Sequence[str]) -> dict[str, Target]:
        """Those of the requests that are in the log."""
        columns = select(_P.id, _P.client, _P.endpoint, _P.rows, _P.status)
        found: dict[str, Target] = {}
        with self._database.read() as connection:
            for some in _parts(ids, _IDS_PER_QUERY):
                for row in connection.execute(columns.where(_P.id.in_(some))):
                    found[row.id] = Target(row.client, row.endpoint, items_of(row.rows, row.status))
        return found

    def history(self, prediction_id: str) -> list[dict[str, Any]]:
        """All revisions, oldest first within an item."""
        columns = (_O.item, _O.value, _O.at, _O.revision, _O.recorded_at, _O.client, _O.key_id)
        wanted = select(*columns).where(_O.prediction_id == prediction_id).order_by(_O.item, _O.revision)
        with self._database.read() as connection:
            return [
                {
                    **_outcome(row),
                    "recorded_at": time_text(row.recorded_at),
                    "client": row.client,
                    "key_id": row.key_id,
                }
                for row in connection.execute(wanted)
            ]


def _put(connection: Connection, outcome: Outcome, recorded_at: float) -> StoredOutcome:
    text = value_text(outcome.value)
    mine = and_(_O.prediction_id == outcome.prediction_id, _O.item == outcome.item)
    columns = (_O.revision, _O.value, _O.at, _O.prediction_at)
    latest = connection.execute(select(*columns).where(mine, _O.current == 1)).one_or_none()
    if latest is not None and latest.value == text:
        return _stored(outcome, latest.at / 1e6, latest.revision, False, latest.prediction_at is not None)
    revision = 1 if latest is None else latest.revision + 1
    if latest is not None:
        connection.execute(update(schema.outcomes).where(mine, _O.current == 1).values(current=0))
    prediction_at = connection.scalar(select(_P.at).where(_P.id == outcome.prediction_id))
    connection.execute(
        insert(schema.outcomes).values(
            prediction_id=outcome.prediction_id,
            item=outcome.item,
            revision=revision,
            value=text,
            value_key=outcome_key(text),
            at=microseconds(outcome.at, "at"),
            recorded_at=microseconds(recorded_at, "recorded_at"),
            client=outcome.client,
            key_id=outcome.key_id,
            current=1,
            prediction_at=prediction_at,
        )
    )
    return _stored(outcome, outcome.at, revision, True, prediction_at is not None)


def _stored(outcome: Outcome, at: float, revision: int, created: bool, joined: bool) -> StoredOutcome:
    return StoredOutcome(outcome.prediction_id, outcome.item, outcome.value, at, revision, created, joined)


def join_waiting(connection: Connection) -> None:
    """Tells outcomes that came before their record when that was; in the transaction that stores the records."""
    if connection.execute(select(_O.item).where(schema.WAITING).limit(1)).first() is None:
        return
    at = select(_P.at).where(_P.id == _O.prediction_id).correlate(schema.outcomes).scalar_subquery()
    known = exists(select(_P.id).where(_P.id == _O.prediction_id).correlate(schema.outcomes))
    connection.execute(update(schema.outcomes).where(schema.WAITING, known).values(prediction_at=at))


def latest_outcomes(connection: Connection, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The latest outcome of each item of these predictions, by item."""
    found: dict[str, list[dict[str, Any]]] = {}
    for some in _parts(ids, _IDS_PER_QUERY):
        for row in connection.execute(_latest().where(_O.prediction_id.in_(some))):
            found.setdefault(row.prediction_id, []).append(_outcome(row))
    return found


def _latest() -> Select[Any]:
    columns = (_O.prediction_id, _O.item, _O.value, _O.at, _O.revision)
    return select(*columns).where(_O.current == 1).order_by(_O.prediction_id, _O.item)


def _outcome(row: Any) -> dict[str, Any]:
    return {"item": row.item, "value": orjson.loads(row.value), "at": time_text(row.at), "revision": row.revision}


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
