"""Pages of a list: `limit`, `cursor`, and in the answer `next_cursor` and `Link` (RFC 8288).

A cursor names the list and the last element that was shown, so that what is added or removed meanwhile moves nothing:
each element that stays is shown once. It is not secret and not signed: it can say nothing but a place.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import orjson
from fastapi import Request, Response

from modelyard.core.errors import InvalidRequestError

Element = TypeVar("Element")
Place = tuple[str | float, ...]

MAX_CURSOR_CHARS = 512


@dataclass(frozen=True)
class Page(Generic[Element]):
    """Some elements of a list; `next_cursor` asks for those behind them, None at the end."""

    elements: Sequence[Element]
    next_cursor: str | None


def page_of(
    elements: Sequence[Element], name: str, place: Callable[[Element], Place], limit: int, cursor: str | None
) -> Page[Element]:
    """The page behind `cursor` of a list that is sorted by `place`; InvalidRequestError("cursor_invalid")."""
    behind = list(elements)
    if cursor is not None:
        last = _decode(cursor, name)
        try:
            behind = [element for element in elements if place(element) > last]
        except TypeError:
            raise cursor_invalid(cursor) from None
    shown = behind[:limit]
    return Page(shown, encode_cursor(name, place(shown[-1])) if len(behind) > limit else None)


def encode_cursor(name: str, place: Place) -> str:
    """The cursor behind an element."""
    return base64.urlsafe_b64encode(orjson.dumps([name, *place])).decode().rstrip("=")


def _decode(cursor: str, name: str) -> Place:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        said = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        raise cursor_invalid(cursor) from None
    if not isinstance(said, list) or said[:1] != [name] or not all(type(part) in (str, float) for part in said):
        raise cursor_invalid(cursor)
    return tuple(said[1:])


def cursor_invalid(cursor: str) -> InvalidRequestError:
    """Not a cursor of this list."""
    return InvalidRequestError(
        "cursor_invalid",
        "This cursor is not one that this list gave.",
        field="cursor",
        expected="`next_cursor` of the page before",
        got=cursor[:80],
    )


def page_answer(request: Request, name: str, views: Sequence[Any], next_cursor: str | None) -> Response:
    """`{name: […], "next_cursor": …}`, with the next page's address in `Link`, relative to this one, so that it is
    right behind a prefix too."""
    headers = {"content-type": "application/json"}
    if next_cursor is not None:
        kept = [(key, text) for key, text in request.query_params.multi_items() if key != "cursor"]
        headers["link"] = f'<?{urlencode([*kept, ("cursor", next_cursor)])}>; rel="next"'
    body = orjson.dumps({name: views, "next_cursor": next_cursor}, default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, headers=headers)
