"""Items: the rows of one request, each addressed `{prediction_id}/{index}`; and the cursors of pages of either.

An item's inputs are by column name where the record has names, else by input; its outputs by output. What stands alone
in a list (a column of one element) is shown alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from modelyard.core.errors import InvalidRequestError
from modelyard.journal.outcomes import outcome_key, value_text
from modelyard.journal.ports import HAS_OUTCOME, NO_OUTCOME, RecordFilter, RecordLog, RecordPage, items_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CURSOR_CHARS = 512
_INT64 = 2**63 - 1
_MAX_ITEM = 2**31
_JUST_BEHIND = " "
"""Sorts behind an id and before every other one: a page that starts behind it starts with that id."""

_SHARED = (
    "time", "request_id", "client", "key_id", "endpoint", "model", "version", "arm", "status", "code", "surface",
    "subject", "flag",
)  # fmt: skip

Json = dict[str, Any]


def encode_cursor(at_us: int, prediction_id: str) -> str:
    """The place behind a record, opaque to callers."""
    return base64.urlsafe_b64encode(f"{at_us}:{prediction_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, str]:
    """(at, id) of the record the page starts behind; InvalidRequestError("cursor_invalid")."""
    try:
        if len(cursor) > _MAX_CURSOR_CHARS:
            raise ValueError
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, colon, prediction_id = text.partition(":")
        if not colon or not prediction_id or abs(int(at)) > _INT64:
            raise ValueError
        return int(at), prediction_id
    except (ValueError, binascii.Error):
        raise _bad_cursor(cursor) from None


def _bad_cursor(cursor: str) -> InvalidRequestError:
    return InvalidRequestError(
        "cursor_invalid",
        "The cursor is none that this log gave out.",
        field="cursor",
        expected="the `cursor` of the page before",
        got=cursor[:80],
    )


def item_page(log: RecordLog, wanted: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
    """One page of items: those of the newest request first, by index within a request.

    A page ends in the middle of a request if it must. InvalidRequestError("cursor_invalid").
    """
    wanted = msgspec.structs.replace(wanted, items=True)
    place, inside, skip = _place(cursor)
    found: list[Json] = []
    while True:
        page = log.page(wanted, limit + 1, place)
        for record in page.records:
            first = skip if record["id"] == inside else 0
            for item in items(record, wanted.outcome):
                if item["item"] < first:
                    continue
                if len(found) == limit:
                    return RecordPage(tuple(found), _item_cursor(found[-1], item))
                found.append(item)
        if page.cursor is None:
            return RecordPage(tuple(found), None)
        place = page.cursor


def _place(cursor: str | None) -> tuple[str | None, str, int]:
    """The record page's cursor, and the request of whose items some were given already."""
    if cursor is None:
        return None, "", 0
    at_us, text = decode_cursor(cursor)
    prediction_id, slash, digits = text.rpartition("/")
    if not slash or not prediction_id or not (digits.isascii() and digits.isdigit()) or int(digits) > _MAX_ITEM:
        raise _bad_cursor(cursor)
    skip = int(digits)
    return encode_cursor(at_us, prediction_id + _JUST_BEHIND if skip else prediction_id), prediction_id, skip


def _item_cursor(last: Json, following: Json) -> str:
    """The place behind the last item; with index 0, behind its whole request."""
    same = last["prediction_id"] == following["prediction_id"]
    at_us = (datetime.fromisoformat(last["time"]) - _EPOCH) // timedelta(microseconds=1)
    return encode_cursor(at_us, f"{last['prediction_id']}/{last['item'] + 1 if same else 0}")


def item_chunks(chunks: Iterable[list[Json]], outcome: str | None, size: int) -> Iterator[list[Json]]:
    """The items of an export's chunks of records, at most `size` at once."""
    gathered: list[Json] = []
    for chunk in chunks:
        for record in chunk:
            for item in items(record, outcome):
                gathered.append(item)
                if len(gathered) == size:
                    yield gathered
                    gathered = []
    if gathered:
        yield gathered


def items(record: Mapping[str, Any], outcome: str | None = None) -> Iterator[Json]:
    """A record's items; with `outcome` (RecordFilter.outcome) those that match it."""
    outcomes = {given["item"]: given for given in record["outcomes"]}
    rows = record["rows"]
    for index in range(items_of(rows, record["status"])):
        given = outcomes.get(index)
        if not outcome_matches(given, outcome):
            continue
        outputs, error = _answer(record, index)
        yield {
            "id": f"{record['id']}/{index}",
            "prediction_id": record["id"],
            "item": index,
            **{name: record[name] for name in _SHARED},
            "inputs": _part(record["inputs"], index, whole=not rows),
            "outputs": outputs,
            "error": error,
            "outcome": None if given is None else {name: given[name] for name in ("value", "at", "revision")},
        }


def outcome_matches(given: Mapping[str, Any] | None, wanted: str | None) -> bool:
    """Whether an item whose latest outcome this is passes RecordFilter.outcome."""
    if wanted is None:
        return True
    if wanted in (HAS_OUTCOME, NO_OUTCOME):
        return (given is not None) == (wanted == HAS_OUTCOME)
    return given is not None and outcome_key(value_text(given["value"])) == wanted[1:]


def _answer(record: Mapping[str, Any], index: int) -> tuple[Any, Any]:
    """One item's outputs and its error, of which one is None."""
    outputs = record["outputs"]
    if record["status"] >= 400:
        return None, outputs
    if isinstance(outputs, list) and index < len(outputs) and isinstance(outputs[index], dict):
        result = outputs[index]
        if "error" in result or "output" in result:
            return result.get("output"), result.get("error")
    return _part(outputs, index, whole=not record["rows"]), None


def _part(values: Any, index: int, whole: bool) -> Any:
    """One item of a record's inputs or outputs."""
    if whole or values is None:
        return values
    if isinstance(values, list):
        return values[index] if index < len(values) else None
    if not isinstance(values, dict):
        return values
    parts = {name: _element(value, index) for name, value in values.items()}
    (only,) = parts.values() if len(parts) == 1 else (None,)
    return only if isinstance(only, dict) and "base64" not in only else parts


def _element(value: Any, index: int) -> Any:
    if not isinstance(value, list):
        return value
    part = value[index] if index < len(value) else None
    return part[0] if isinstance(part, list) and len(part) == 1 else part
