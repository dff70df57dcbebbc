"""What a key may do, and how its limits are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from modelyard.core.errors import InvalidRequestError

MAX_RATE_COUNT = 1_000_000_000
MAX_PERIOD_S = 86_400.0 * 31
MAX_QUOTA = 10**10
"""Largest daily quota; the shared table counts to 2^40."""
MAX_CONCURRENCY = 1_000_000
NO_BOUND = "none"
"""How a caller takes a bound away."""

_UNITS: Mapping[str, float] = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_RATE = re.compile(r"([1-9][0-9]{0,9})/([1-9][0-9]{0,5})?([smhd])")
_QUOTA = re.compile(r"([1-9][0-9]{0,10})(?:/(?:d|day))?")
_DURATION = re.compile(r"([1-9][0-9]{0,7})([smhdw])")


class Scope(StrEnum):
    """What a route asks for. Least privilege: `admin` manages and reads, but cannot predict."""

    PREDICT = "predict"
    """Predict, model metadata and health of the models that the key may use."""
    ADMIN = "admin"
    """Everything under /v1 that changes the server: models, traffic, keys."""
    AUDIT = "audit"
    """Reads the prediction log and the audit trail; changes nothing."""
    METRICS = "metrics"
    """Reads /metrics."""


IMPLIED: Mapping[Scope, frozenset[Scope]] = {Scope.ADMIN: frozenset({Scope.AUDIT, Scope.METRICS})}
"""Scopes that come with another one."""


class Rate(NamedTuple):
    """`count` requests per `period_s` seconds, `burst` of them at once."""

    count: int  # type: ignore[assignment]  # nobody misses tuple.count
    period_s: float
    burst: int


def parse_scopes(names: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes of these names, each once, sorted; InvalidRequestError("parameter_invalid") for any other name."""
    known = {scope.value for scope in Scope}
    given = set(names)
    if unknown := sorted(given - known):
        raise _wrong("scopes", f"There is no scope `{unknown[0]}`.", " ".join(sorted(known)), unknown[0], "predict")
    if not given:
        raise _wrong("scopes", "A key needs at least one scope.", " ".join(sorted(known)), "", "predict")
    return tuple(Scope(name) for name in sorted(given))


def parse_rate(text: str) -> Rate:
    """`100/s`, `6000/m`, `5/10s` as a rate whose burst is its count; InvalidRequestError("rate_invalid")."""
    match = _RATE.fullmatch(text.strip())
    if match is not None:
        count, period_s = int(match[1]), int(match[2] or 1) * _UNITS[match[3]]
        if count <= MAX_RATE_COUNT and period_s <= MAX_PERIOD_S:
            return Rate(count, period_s, count)
    raise InvalidRequestError(
        "rate_invalid",
        f"`{text[:40]}` is not a rate.",
        field="rate",
        expected=f"count/unit with a unit of s, m, h or d, at most {MAX_RATE_COUNT}/31d",
        got=text[:40],
        example="100/s",
    )


def parse_quota(text: str) -> int | None:
    """`10000/day` (or `10000/d`, `10000`) as predictions per UTC day, None for `none`;
    InvalidRequestError("rate_invalid")."""
    text = text.strip()
    if text == NO_BOUND:
        return None
    match = _QUOTA.fullmatch(text)
    if match is not None and int(match[1]) <= MAX_QUOTA:
        return int(match[1])
    raise InvalidRequestError(
        "rate_invalid",
        f"`{text[:40]}` is not a daily quota.",
        field="quota",
        expected=f"count/day, 1 to {MAX_QUOTA}, or `{NO_BOUND}`",
        got=text[:40],
        example="10000/day",
    )


def parse_concurrency(text: str) -> int | None:
    """A whole number of predictions at the same time, None for `none`; InvalidRequestError("parameter_invalid")."""
    text = text.strip()
    if text == NO_BOUND:
        return None
    if re.fullmatch(r"[0-9]{1,7}", text):
        return check_concurrency(int(text))
    raise _wrong_concurrency(text[:40])


def check_concurrency(count: int) -> int:
    """The count, if it can be a client's concurrency; InvalidRequestError("parameter_invalid")."""
    if 1 <= count <= MAX_CONCURRENCY:
        return count
    raise _wrong_concurrency(str(count)[:40])


def parse_duration(text: str, field: str = "expires") -> float:
    """`90s`, `15m`, `12h`, `30d`, `2w` in seconds; InvalidRequestError("parameter_invalid") that names `field`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise _wrong(field, f"`{text[:40]}` is not a duration.", "a number and s, m, h, d or w", text[:40], "30d")
    return int(match[1]) * _UNITS[match[2]]


def _wrong_concurrency(got: str) -> InvalidRequestError:
    expected = f"1 to {MAX_CONCURRENCY}, or `{NO_BOUND}`"
    return _wrong("concurrency", f"`{got}` is not a number of predictions at the same time.", expected, got, "16")


def _wrong(field: str, message: str, expected: str, got: str, example: str) -> InvalidRequestError:
    return InvalidRequestError("parameter_invalid", message, field=field, expected=expected, got=got, example=example)
