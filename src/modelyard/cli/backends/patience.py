"""How long a command waits for a server, and how often it asks again where it is told to come back later."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import urllib3

from modelyard.core.errors import CommandError

DEFAULT_WAIT_S = 1.0
"""What is waited where a server says 429 or 503 without `Retry-After`."""
NOTHING_WAS_DONE = frozenset({
    "rate_limited", "concurrency_exceeded", "server_busy", "overloaded", "inflight_bytes_exceeded", "shutting_down",
    "model_not_ready",
})  # fmt: skip
"""Refusals after which asking again does nothing twice, whatever the verb."""
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Verbs that say the same when they are said twice (RFC 9110, 9.2.2)."""


@dataclass(frozen=True)
class Patience:
    """Bounds of one command; seconds, but for `retries`. `wait_s` is the most that one command waits between its
    tries, all together."""

    connect_s: float = 5.0
    answer_s: float = 30.0
    publish_s: float = 600.0
    retries: int = 3
    wait_s: float = 30.0

    def timeout(self, answer_s: float | None = None) -> urllib3.Timeout:
        """The bounds of one request."""
        return urllib3.Timeout(connect=self.connect_s, read=self.answer_s if answer_s is None else answer_s)


ENVIRONMENT: Mapping[str, str] = {
    "connect_s": "MODELYARD_CONNECT_TIMEOUT_S",
    "answer_s": "MODELYARD_TIMEOUT_S",
    "publish_s": "MODELYARD_PUBLISH_TIMEOUT_S",
    "retries": "MODELYARD_RETRIES",
    "wait_s": "MODELYARD_RETRY_WAIT_S",
}
"""Where each bound is set; `--timeout` and `--retries` set two of them for one command."""


def patience(environment: Mapping[str, str] | None = None) -> Patience:
    """The bounds that the environment sets; CommandError("usage_invalid") names what is no number."""
    given = os.environ if environment is None else environment
    found = Patience()
    for field in fields(Patience):
        name = ENVIRONMENT[field.name]
        if text := given.get(name):
            value: Any = _whole(name, text) if field.name == "retries" else _seconds(name, text)
            found = replace(found, **{field.name: value})
    return found


def ask_again(
    ask: Callable[[], urllib3.BaseHTTPResponse],
    method: str,
    code_of: Callable[[urllib3.BaseHTTPResponse], str],
    bounds: Patience,
    pause: Callable[[float], None],
) -> urllib3.BaseHTTPResponse:
    """The answer, or the last refusal. After 429 and 503 it asks again when `Retry-After` says so, as long as the
    bounds allow and nothing can be done twice. `code_of` reads the code of a refusal."""
    left_s = bounds.wait_s
    for _ in range(bounds.retries):
        answer = ask()
        if answer.status not in (429, 503):
            return answer
        if method not in REPEATABLE and code_of(answer) not in NOTHING_WAS_DONE:
            return answer
        wait_s = retry_after_s(answer.headers.get("retry-after"))
        if wait_s > left_s:
            return answer
        left_s -= wait_s
        pause(wait_s)
    return ask()


def retry_after_s(text: str | None) -> float:
    """Whole seconds; a date, or nothing, is the default."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else DEFAULT_WAIT_S


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text) if text.isascii() else -1.0
    except ValueError:
        value = -1.0
    if 0 < value <= 86_400:
        return value
    raise _wrong(name, text, "seconds, above 0, at most a day", "30")


def _whole(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 2:
        return int(text)
    raise _wrong(name, text, "a whole number, 0 to 99", "3")


def _wrong(name: str, text: str, expected: str, example: str) -> CommandError:
    return CommandError(
        "usage_invalid", f"`{text[:40]}` is wrong for {name}.", field=name, expected=expected, got=text[:40],
        example=example,
    )  # fmt: skip
