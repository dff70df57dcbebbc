"""How a refusal is said over HTTP: the one place that maps the error tree to statuses.

Every error body is `{"error": "<one sentence>", "code": "<stable>", "detail": {…}, "request_id": "…"}`, sent as
exactly `application/json`; some clients show the sentence only then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson

from modelyard.core.errors import (
    AuthenticationError,
    AuthorizationError,
    CommandError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    LimitError,
    MediaTypeError,
    MethodError,
    ModelError,
    ModelyardError,
    NotFoundError,
    OverloadError,
    PublishError,
    SettingsError,
    TooLargeError,
    UnavailableError,
)

FAMILY_STATUS: Mapping[type[ModelyardError], int] = {
    AuthenticationError: 401,
    AuthorizationError: 403,
    LimitError: 429,
    OverloadError: 503,
    NotFoundError: 404,
    MethodError: 405,
    InvalidRequestError: 400,
    TooLargeError: 413,
    MediaTypeError: 415,
    UnavailableError: 503,
    ModelError: 500,
    ConflictError: 409,
    PublishError: 422,
    InternalError: 500,
}
"""The status of a family's codes, unless CODE_STATUS has another."""

CODE_STATUS: Mapping[str, int] = {
    "url_too_long": 414,
    "headers_too_large": 431,
    "receive_timeout": 408,
    "request_timeout": 503,
    "etag_stale": 412,
    "idempotency_mismatch": 422,
}
"""Codes whose status differs from their family's (DeadlineError has none of its own)."""

NEVER_OVER_HTTP: frozenset[type[ModelyardError]] = frozenset({SettingsError, CommandError})
"""Families that end a start or a command before there is a request; they would be a 500."""

RETRYABLE = frozenset({429, 503})
DEFAULT_RETRY_AFTER_S = 1


def status_of(error: ModelyardError) -> int:
    """The HTTP status of this error."""
    special = CODE_STATUS.get(error.code)
    return special if special is not None else FAMILY_STATUS.get(type(error), 500)


def error_body(error: ModelyardError, request_id: str) -> bytes:
    """The error as JSON; whatever in the detail is not JSON becomes text."""
    form = {"error": error.message, "code": error.code, "detail": error.detail, "request_id": request_id}
    try:
        return orjson.dumps(form, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # lone surrogates, integers beyond 64 bits
        plain = {"error": _printable(error.message), "code": error.code, "request_id": request_id}
        return orjson.dumps(plain | {"detail": {name: _printable(str(value)) for name, value in error.detail.items()}})


def render_error(error: ModelyardError, request_id: str) -> tuple[int, bytes]:
    """Status and body (core.call.ErrorRenderer). The error's tracebacks are gone afterwards."""
    forget_frames(error)
    return status_of(error), error_body(error, request_id)


def forget_frames(error: BaseException | None) -> None:
    """Drops the tracebacks of a refusal and of all that led to it.

    Their frames hold the request's body, and in a circle the error itself: only the garbage collector would free
    them, which a worker runs seldom. A hundred bad bodies of 1 MiB would keep 100 MiB (promise P4).
    """
    while error is not None:
        before = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = before


def error_headers(error: ModelyardError) -> dict[str, str]:
    """The headers that go with the body: content type; `Retry-After` on 429 and 503, and wherever it is known, whole
    seconds rounded up;
    `Allow` on 405; `WWW-Authenticate` on 401."""
    status = status_of(error)
    headers = {"content-type": "application/json"}
    if status in RETRYABLE or error.retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s(error))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodError) and error.detail.get("expected"):
        headers["allow"] = ", ".join(error.detail["expected"])
    return headers


def retry_after_s(error: ModelyardError) -> int:
    """Whole seconds until it is worth trying again, at least 1."""
    return max(1, math.ceil(error.retry_after_s or DEFAULT_RETRY_AFTER_S))


def _as_text(value: object) -> object:
    """What orjson cannot write by itself (a mapping proxy, a set, a path)."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
