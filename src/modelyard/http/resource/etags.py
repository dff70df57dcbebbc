"""Entity tags (RFC 9110, 8.8.3 and 13.1): a caller says what it saw, and is told when that is not so any more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response

from modelyard.core.errors import ConflictError, InvalidRequestError

_TAGS = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e]*")')
_DIGEST_DIGITS = 32


def etag_of(view: Mapping[str, Any]) -> str:
    """A strong tag of what is shown: the first 128 bits of SHA-256 over its JSON with sorted keys."""
    text = orjson.dumps(view, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return f'"{hashlib.sha256(text).hexdigest()[:_DIGEST_DIGITS]}"'


def revision_etag(revision: int) -> str:
    """The tag of what counts its changes: `"3"`."""
    return f'"{revision}"'


def require_match(request: Request, current: str) -> bool:
    """Whether the caller said with `If-Match` what it saw, and that is `current`; False if it said nothing.

    Raises ConflictError("etag_stale") if it saw something else, a weak tag included (RFC 9110: strong comparison);
    InvalidRequestError("parameter_invalid") for what is no list of tags.
    """
    said = _header(request, "if-match")
    if said is None:
        return False
    if said.strip() != "*" and ("", current) not in _tags(said, "if-match", current):
        raise ConflictError(
            "etag_stale",
            "This was changed since you looked; look at it again.",
            field="if-match",
            expected=current,
            got=said[:200],
        )
    return True


def tagged(request: Request, answer: Response, tag: str) -> Response:
    """The answer with its tag; 304 without a body if `If-None-Match` names it."""
    answer.headers["etag"] = tag
    said = _header(request, "if-none-match")
    if said is None:
        return answer
    if said.strip() == "*" or tag in {text for _, text in _tags(said, "if-none-match", tag)}:
        return Response(status_code=304, headers={"etag": tag})
    return answer


def _header(request: Request, name: str) -> str | None:
    given = request.headers.getlist(name)
    return ", ".join(given) if given else None


def _tags(said: str, field: str, example: str) -> set[tuple[str, str]]:
    """Each tag with its `W/` ("" for a strong one)."""
    if _TAGS.fullmatch(said) is None:
        raise InvalidRequestError(
            "parameter_invalid",
            f"`{field}` holds no entity tags.",
            field=field,
            expected="tags in double quotes, as `ETag` gave them, or `*`",
            got=said[:200],
            example=example,
        )
    return set(_TAG.findall(said))
