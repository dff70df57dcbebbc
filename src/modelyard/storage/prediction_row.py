"""A prediction record as a row of text and numbers, and that row as the dict that readers get.

`to_row` runs once per prediction in the drain, so it does nothing twice: JSON is made once, as the text the column
keeps. `at` is UNIX microseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson

from modelyard.core.errors import InvalidRequestError
from modelyard.journal.items import outcome_matches
from modelyard.journal.ports import RecordFilter, items_of
from modelyard.journal.record import PredictionRecord

# fmt: off
COLUMNS = [
    "id", "at", "request_id", "client", "key_id", "endpoint", "model", "version", "arm", "status", "code", "rows",
    "inputs", "outputs", "queue_us", "compute_us", "total_us", "request_bytes", "answer_bytes", "flag", "surface",
    "subject", "manifest", "redaction", "payload_sha256", "raw_header", "raw",
]
# fmt: on
"""The order of a row's fields."""

READ_COLUMNS = COLUMNS[: COLUMNS.index("subject") + 1]
"""What a reader gets, in the same order."""

AT = COLUMNS.index("at")
_ROWS, _STATUS, _SUBJECT = map(COLUMNS.index, ("rows", "status", "subject"))
_POLICY_CHARS = 255

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _embed(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    raise TypeError


def json_text(value: Any) -> str:
    """A JSON value as text; parts that are JSON already (msgspec.Raw, orjson.Fragment) are taken as they are."""
    try:
        return orjson.dumps(value, default=_embed, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:
        # Lone surrogates and integers beyond 64 bits: legal in JSON, refused by orjson. One odd record must not
        # stop the drain, so it takes the slow way.
        return json.dumps(value)


def to_row(record: PredictionRecord) -> tuple[Any, ...]:
    """The row of a record, in the order of COLUMNS."""
    h = record.header
    raw = record.raw
    return (
        h.id,
        h.at_ns // 1000,
        h.request_id,
        h.client,
        h.key_id,
        h.endpoint,
        h.model,
        h.version,
        h.arm,
        h.status,
        h.code,
        h.rows,
        json_text(record.inputs),
        json_text(record.outputs),
        h.queue_us,
        h.compute_us,
        h.total_us,
        record.request_bytes,
        record.answer_bytes,
        record.flag,
        h.surface,
        h.subject,
        h.manifest,
        _policy(h.redaction),
        record.payload_sha256,
        None if raw is None else msgspec.msgpack.encode(h),
        raw,
    )


def _policy(redaction: str) -> str:
    """The redaction policy, or its digest where it is long; the manifest has all of it."""
    if len(redaction) <= _POLICY_CHARS:
        return redaction
    return "sha256:" + hashlib.sha256(redaction.encode()).hexdigest()


def to_record(row: Sequence[Any], outcomes: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The dict that readers get (journal.ports.RecordLog) of a row's READ_COLUMNS and its items' outcomes."""
    return {
        "id": row[0],
        "time": time_text(row[1]),
        "request_id": row[2],
        "client": row[3],
        "key_id": row[4],
        "endpoint": row[5],
        "model": row[6],
        "version": row[7],
        "arm": row[8],
        "status": row[9],
        "code": row[10],
        "rows": row[11],
        "inputs": orjson.loads(row[12]),
        "outputs": orjson.loads(row[13]),
        "latency": {"queue_us": row[14], "compute_us": row[15], "total_us": row[16]},
        "sizes": {"request_bytes": row[17], "answer_bytes": row[18]},
        "flag": row[19],
        "surface": row[20],
        "subject": row[21],
        "outcomes": list(outcomes),
    }


def time_text(at_us: int) -> str:
    """UNIX microseconds as RFC 3339 in UTC, always with six digits of the second."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def microseconds(at_s: float, field: str) -> int:
    """A bound of a filter in UNIX microseconds; InvalidRequestError("parameter_invalid") for NaN."""
    if at_s != at_s:
        raise InvalidRequestError(
            "parameter_invalid", f"`{field}` is no time.", field=field, expected="UNIX seconds", got="NaN"
        )
    return round(max(-9e12, min(9e12, at_s)) * 1_000_000)


def status_range(status: int) -> tuple[int, int]:
    """First and last status that a filter's `status` means: a code itself, or the hundred of a class."""
    return (status * 100, status * 100 + 99) if status < 10 else (status, status)


def matches(row: Sequence[Any], wanted: RecordFilter, outcomes: Sequence[dict[str, Any]] = ()) -> bool:
    """Whether a row passes the filter; the definition that the SQL of `sql.records.query` follows."""
    low, high = (0, 999) if wanted.status is None else status_range(wanted.status)
    names = (
        (wanted.client, 3), (wanted.endpoint, 5), (wanted.model, 6), (wanted.version, 7), (wanted.subject, _SUBJECT)
    )  # fmt: skip
    count = items_of(row[_ROWS], row[_STATUS])
    return (
        all(name is None or row[place] == name for name, place in names)
        and low <= row[_STATUS] <= high
        and (wanted.since is None or row[AT] >= microseconds(wanted.since, "since"))
        and (wanted.until is None or row[AT] < microseconds(wanted.until, "until"))
        and not (wanted.items and count == 0)
        and (wanted.outcome is None or matching_items(row, wanted.outcome, outcomes) > 0)
    )


def matching_items(row: Sequence[Any], wanted: str | None, outcomes: Sequence[dict[str, Any]]) -> int:
    """How many items of a row pass RecordFilter.outcome."""
    given = {outcome["item"]: outcome for outcome in outcomes}
    indexes = range(items_of(row[_ROWS], row[_STATUS]))
    return sum(outcome_matches(given.get(index), wanted) for index in indexes)
