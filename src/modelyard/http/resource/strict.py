"""What a management request may hold: JSON without duplicate keys, bounded bodies, query parameters that are declared
and given once, names in the path that something can have."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from modelyard.codec.json_strict import parse
from modelyard.core.errors import InvalidRequestError, ModelyardError, TooLargeError
from modelyard.core.types import NAME, CodecBounds

MAX_JSON_BODY_BYTES = 1024 * 1024
"""Largest body of a management request; versions are streamed and have a bound of their own."""

MAX_NAMES = 1_000
"""Most names in the object that is a management request: each unknown one becomes an error of a kilobyte before the
first of them is told (tests/security/test_amplification.py)."""

_BOUNDS = CodecBounds()
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?")


class StrictRequest(Request):
    """A request whose JSON is read by the rules of predictions. `refused` is what it said no to: frameworks turn an
    error inside of them into one that has forgotten the reason."""

    def __init__(self, request: Request, bound_bytes: int = MAX_JSON_BODY_BYTES) -> None:
        # What counts the body knows nothing of the request: a circle would keep the body until the next collection.
        self._bounded = _Bounded(request.receive, bound_bytes)
        super().__init__(request.scope, self._bounded)

    @property
    def refused(self) -> ModelyardError | None:
        """The refusal, if there was one."""
        return self._bounded.refused

    async def json(self) -> Any:
        """The body's value; InvalidRequestError."""
        try:
            value = parse(await self.body(), _BOUNDS)
            if isinstance(value, dict) and len(value) > MAX_NAMES:
                raise InvalidRequestError(
                    "json_too_many_values",
                    f"The object has more than {MAX_NAMES} names.",
                    field="body",
                    expected=f"at most {MAX_NAMES} names",
                    got=len(value),
                )
            return value
        except InvalidRequestError as error:
            self._bounded.refused = error
            raise


class _Bounded:
    """An ASGI `receive` that refuses to hand out more than a bound; keeps the refusal."""

    def __init__(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], bound_bytes: int) -> None:
        self._receive = receive
        self._bound_bytes = bound_bytes
        self._size_bytes = 0
        self.refused: ModelyardError | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._size_bytes += len(message.get("body", b""))
        if self._size_bytes > self._bound_bytes:
            self.refused = body_too_large(self._bound_bytes, self._size_bytes, "body")
            raise self.refused
        return message


def body_too_large(bound_bytes: int, got_bytes: int, field: str) -> TooLargeError:
    """A body over its bound; `field` names the setting, or the body."""
    return TooLargeError(
        "body_too_large",
        f"The body is larger than {bound_bytes} bytes.",
        field=field,
        expected=f"at most {bound_bytes} bytes",
        got=got_bytes,
    )


def declared_query(dependant: Dependant) -> Mapping[str, bool]:
    """The query parameters that an endpoint declares; True for those that may be given more than once."""
    declared: dict[str, bool] = {}
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            declared |= {name: _many(inner.annotation) for name, inner in annotation.model_fields.items()}
        else:
            declared[field.alias] = _many(annotation)
    return declared


def _many(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, set, frozenset)


def check_query(request: Request, declared: Mapping[str, bool]) -> None:
    """InvalidRequestError("field_unknown") for a parameter that nothing reads, "parameter_invalid" for one that is
    given twice: two readers could take two different ones."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in declared:
            raise InvalidRequestError(
                "field_unknown",
                f"There is no parameter `{name[:80]}` here.",
                field=name[:200],
                expected=sorted(declared),
            )
        if name in seen and not declared[name]:
            raise InvalidRequestError(
                "parameter_invalid", f"`{name}` is given twice.", field=name, expected="one value", got="two"
            )
        seen.add(name)


def check_path(request: Request) -> None:
    """InvalidRequestError("name_invalid") for an id or name in the path that nothing can have."""
    for field, text in request.path_params.items():
        if (_ID if field == "id" else NAME).fullmatch(str(text)) is None or ".." in str(text):
            raise InvalidRequestError(
                "name_invalid",
                f"`{str(text)[:80]}` cannot be the {field} of anything.",
                field=field,
                expected="1 to 128 letters, digits, `.`, `_`, `-`, a letter or digit at both ends",
                got=str(text)[:200],
            )
