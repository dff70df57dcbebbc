"""What callers ask for, read from text: names, times, filters of the log, shares of traffic. Knows no framework, so
that the command line asks in the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from modelyard.auth.scopes import parse_duration
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import NAME
from modelyard.journal.outcomes import outcome_key, value_text
from modelyard.journal.ports import HAS_OUTCOME, NO_OUTCOME, OUTCOME_IS, RecordFilter

MAX_PAGE = 1000
"""Most records of one page."""
DEFAULT_PAGE = 100

NAME_RULE = "1 to 128 letters, digits, `.`, `_`, `-`, a letter or digit at both ends"

_DURATION = re.compile(r"[0-9]+[smhdw]")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_STATUS = re.compile(r"([1-5])(?:xx)?|([1-5][0-9]{2})")


def is_name(text: str) -> bool:
    """Whether a model, version or endpoint can have this name."""
    return NAME.fullmatch(text) is not None and ".." not in text


def check_name(text: str, field: str) -> str:
    """The name itself; InvalidRequestError("name_invalid") that names `field`."""
    if is_name(text):
        return text
    raise InvalidRequestError(
        "name_invalid",
        f"`{text[:80]}` cannot be the name of a {field}.",
        field=field,
        expected=NAME_RULE,
        got=text[:200],
        example="tree-v2" if field == "model" else "1",
    )


def parse_time(text: str, field: str, now: float) -> float:
    """UNIX seconds from an ISO 8601 time (UTC where it names no zone), UNIX seconds, or a duration before `now`."""
    text = text.strip()
    if _DURATION.fullmatch(text):
        return now - parse_duration(text, field)
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            "parameter_invalid",
            f"`{text[:60]}` is not a time.",
            field=field,
            expected="an ISO 8601 time, UNIX seconds, or a duration before now",
            got=text[:60],
            example="2026-01-31T12:00:00Z or 15m",
        ) from None


def parse_status(text: str) -> int:
    """`200` as 200; `4` and `4xx` as the class 4."""
    match = _STATUS.fullmatch(text.strip().lower())
    if match is None:
        raise InvalidRequestError(
            "parameter_invalid",
            f"`{text[:20]}` is neither a status nor a class of statuses.",
            field="status",
            expected="100 to 599, or 2xx, 4xx, 5xx",
            got=text[:20],
            example="2xx",
        )
    return int(match[1] or match[2])


def record_filter(asked: Mapping[str, str | None], now: float) -> RecordFilter:
    """The filter for `model`, `version`, `client`, `endpoint`, `subject`, `status`, `outcome`, `since`, `until`, and
    `items` ("true"); empty texts match all."""
    given = {name: text for name, text in asked.items() if text}
    names = ("model", "version", "client", "endpoint", "subject")
    values: dict[str, Any] = {name: given.get(name) for name in names}
    values["items"] = given.get("items") == "true"
    if "outcome" in given:
        values["outcome"] = outcome_filter(given["outcome"])
    if "status" in given:
        values["status"] = parse_status(given["status"])
    for name in ("since", "until"):
        if name in given:
            values[name] = parse_time(given[name], name, now)
    return RecordFilter(**values)


def outcome_filter(text: str) -> str:
    """RecordFilter.outcome of `has`, `none`, or `=` and a value."""
    if text in (HAS_OUTCOME, NO_OUTCOME):
        return text
    if text.startswith(OUTCOME_IS):
        return OUTCOME_IS + outcome_key(value_text(typed_value(text[1:])))
    raise InvalidRequestError(
        "parameter_invalid",
        f"`{text[:60]}` says nothing about an outcome.",
        field="outcome",
        expected="has, none, or = and a value",
        got=text[:60],
        example="=1",
    )


def typed_value(text: str) -> Any:
    """A value that somebody typed: JSON, or a text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def traffic_weights(shares: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Shares in percent by version, in the caller's order; those of 0 are left out.

    Raises InvalidRequestError: traffic_invalid unless they are whole numbers that add up to 100; name_invalid.
    """
    for version, share in shares.items():
        check_name(version, "version")
        if not 0 <= share <= 100:
            raise _traffic(f"The share of version `{version}` is {share}.", f"weights.{version}", "0 to 100", share)
    total = sum(shares.values())
    if total != 100:
        raise _traffic(f"The shares add up to {total}, not to 100.", "weights", "a sum of 100", total)
    return tuple((version, share) for version, share in shares.items() if share > 0)


def _traffic(message: str, field: str, expected: str, got: int) -> InvalidRequestError:
    return InvalidRequestError(
        "traffic_invalid", message, field=field, expected=expected, got=got, example={"weights": {"1": 90, "2": 10}}
    )
