"""Outcomes in the words of callers: one, or many at once, and what became of each. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from modelyard.core.errors import InvalidRequestError, ModelyardError, TooLargeError
from modelyard.http.errors import status_of
from modelyard.http.forms.asking import parse_time
from modelyard.journal.outcomes import OutcomeDesk
from modelyard.journal.ports import Outcome, StoredOutcome, Target

MAX_OUTCOMES = 10_000
"""Most outcomes of one request."""
_MAX_ITEM = 2**31 - 1
_MAX_TIME_S = 253_402_300_799
_FIELDS = frozenset({"id", "value", "item", "at"})
EXAMPLE = {"id": "1f3a5c7e9b2d4f600000000001", "value": 1}

Json = dict[str, Any]


class Giver(msgspec.Struct, frozen=True):
    """Who gives outcomes, and of whose requests they may speak."""

    client: str
    key_id: str
    may: Callable[[Target], bool]


def read_outcome(said: Any, giver: Giver, now: float) -> Outcome:
    """One outcome: `id` (of a request, or of an item as `{id}/{index}`), `value`, `item`, `at`. InvalidRequestError."""
    if not isinstance(said, dict):
        raise _wrong("field_type", "", "an object", type(said).__name__)
    for name in said:
        if name not in _FIELDS:
            raise _wrong("field_unknown", str(name)[:80], "id, value, item and at", str(name)[:80])
    for name in ("id", "value"):
        if name not in said:
            raise _wrong("field_missing", name, f"a field {name}", None)
    prediction_id, item = _address(said["id"], said.get("item"))
    return Outcome(prediction_id, item, said["value"], read_at(said.get("at"), now), giver.client, giver.key_id)


def _address(said: Any, item: Any) -> tuple[str, int]:
    if not isinstance(said, str) or not said:
        raise _wrong("field_type", "id", "a prediction's id", _shown(said))
    prediction_id, slash, index = said.partition("/")
    if item is not None and (type(item) is not int or not 0 <= item <= _MAX_ITEM):
        raise _wrong("field_type", "item", "a whole number from 0 on", _shown(item))
    if not slash:
        return prediction_id, item or 0
    if not (index.isascii() and index.isdigit() and int(index[:12]) <= _MAX_ITEM) or item not in (None, int(index)):
        raise _wrong("value_invalid", "id", "an id, or an id with the index of one item", said[:80])
    return prediction_id, int(index)


def read_at(said: Any, now: float) -> float:
    """When an outcome was so, in UNIX seconds; now, if nobody says. InvalidRequestError."""
    at = said
    if said is None:
        at = now
    elif isinstance(said, str):
        at = parse_time(said, "at", now)
    if type(at) not in (int, float) or not 0 <= at <= _MAX_TIME_S:
        raise _wrong("value_invalid", "at", "an ISO 8601 time or UNIX seconds", _shown(said))
    return float(at)


def give_many(desk: OutcomeDesk, said: Any, giver: Giver, now: float) -> Json:
    """Takes a JSON array, or bytes of JSON Lines. Each element is taken or refused on its own; `results` is in their
    order. TooLargeError for more than MAX_OUTCOMES, InvalidRequestError for what is no list."""
    read: list[Outcome | ModelyardError] = []
    many = isinstance(said, list) and len(said) > MAX_OUTCOMES
    for element in _elements(said):
        if many or len(read) == MAX_OUTCOMES:
            raise TooLargeError(
                "body_too_large", f"These are more than {MAX_OUTCOMES} outcomes.", field="body",
                expected=f"at most {MAX_OUTCOMES} outcomes",
            )  # fmt: skip
        try:
            read.append(read_outcome(element() if callable(element) else element, giver, now))
        except InvalidRequestError as error:
            read.append(error.with_traceback(None))  # its frames hold kilobytes, and there may be thousands
    given = iter(desk.give([one for one in read if isinstance(one, Outcome)], giver.may))
    results = [one if isinstance(one, ModelyardError) else next(given) for one in read]
    stored = [one for one in results if isinstance(one, StoredOutcome)]
    return {
        "stored": len(stored),
        "waiting": sum(not one.joined for one in stored),
        "refused": len(results) - len(stored),
        "results": [_result(index, one) for index, one in enumerate(results)],
    }


def _elements(said: Any) -> Iterable[Any]:
    if isinstance(said, bytes):
        return _lines(said)
    if isinstance(said, list):
        return said
    raise _wrong("field_type", "body", "a JSON array, or JSON Lines as application/x-ndjson", type(said).__name__)


def _lines(body: bytes) -> Iterator[Callable[[], Any]]:
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            yield lambda line=line, number=number: _parsed(line, number)  # type: ignore[misc]


def _parsed(line: bytes, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _wrong("json_invalid", f"line {number}", "one JSON object a line", None) from None


def _result(index: int, one: StoredOutcome | ModelyardError) -> Json:
    if isinstance(one, StoredOutcome):
        return {"index": index, "outcome": outcome_view(one), "error": None}
    refusal = {"error": one.message, "code": one.code, "status": status_of(one), "detail": dict(one.detail)}
    return {"index": index, "outcome": None, "error": refusal}


def outcome_view(stored: StoredOutcome) -> Json:
    """An outcome as it is on record."""
    at = datetime.fromtimestamp(stored.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "id": f"{stored.prediction_id}/{stored.item}",
        "value": stored.value,
        "at": at,
        "revision": stored.revision,
        "created": stored.created,
        "joined": stored.joined,
    }


def outcome_status(stored: StoredOutcome) -> int:
    """201 for a new one, 200 for one that was there, 202 while its request is on its way into the log."""
    return 202 if not stored.joined else 201 if stored.created else 200


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _wrong(code: str, field: str, expected: str, got: Any) -> InvalidRequestError:
    return InvalidRequestError(
        code, f"{field or 'An outcome'}: expected {expected}.", field=field, expected=expected, got=got, example=EXAMPLE
    )
