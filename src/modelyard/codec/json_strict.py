"""JSON as strictly as a prediction needs it: no duplicate keys, no NaN, bounded depth and size, exact integers.

Two parsers stand behind one function. orjson reads what is in order; it hides duplicate keys, so its result counts
only if the document has exactly as many colons as the result has pairs (each pair owns one colon outside strings;
a swallowed pair or a colon inside a string breaks the equality). Everything else goes to the standard library's
parser, which is slower and tells precisely what is wrong.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import numpy as np
import orjson

from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import CodecBounds

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_CONTAINERS = frozenset((dict, list))
_OPENING = (ord("["), ord("{"))
_CLOSING = (ord("]"), ord("}"))


class NotJson:
    """Stands where a document says NaN, Infinity or -Infinity, so that the reader can name the place."""

    def __init__(self, text: str) -> None:
        self.text = text


def parse(body: bytes, bounds: CodecBounds, *, keep_constants: bool = False) -> Any:
    """The document's value. NaN, Infinity and -Infinity are refused, or become `NotJson` with `keep_constants`.

    Raises InvalidRequestError: json_invalid, json_too_deep, json_too_many_values, json_duplicate_key, value_invalid.
    """
    if body.count(b",") < bounds.max_json_values:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            pairs, depth = _survey(value)
            if pairs == body.count(b":") and depth <= bounds.max_json_depth:
                return value
    check_bounds(body, bounds)
    return parse_carefully(body, keep_constants=keep_constants)


def parse_for_log(body: bytes) -> Any:
    """The value of a document that was taken, as JSON can hold it: a number beyond a double (1e392) and what is no
    number (NaN) stand as their own text. ValueError if it is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body.decode("utf-8"), parse_float=_double, parse_int=_whole, parse_constant=str)


def _double(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _whole(text: str) -> int | float | str:
    value = int(text)
    return value if -(2**63) <= value < 2**64 else _double(text)


def check_bounds(body: bytes, bounds: CodecBounds) -> None:
    """Refuses a document that is too deep or too large before anything is built from it."""
    opened = body.count(b"[") + body.count(b"{")
    separated = body.count(b",")
    if opened <= bounds.max_json_depth and separated < bounds.max_json_values:
        return
    bare = _STRING.sub(b'""', body)
    values = bare.count(b",") + 1
    if values > bounds.max_json_values:
        raise InvalidRequestError(
            "json_too_many_values",
            f"The JSON has more than {bounds.max_json_values} values.",
            field="body",
            expected=f"at most {bounds.max_json_values} values (codec.max_json_values)",
            got=values,
        )
    depth = _depth(bare)
    if depth > bounds.max_json_depth:
        raise InvalidRequestError(
            "json_too_deep",
            f"The JSON is nested more than {bounds.max_json_depth} levels deep.",
            field="body",
            expected=f"at most {bounds.max_json_depth} levels (codec.max_json_depth)",
            got=depth,
        )


def parse_carefully(body: bytes, *, keep_constants: bool = False) -> Any:
    """The standard library's reading of the document, with duplicate keys refused and the error's place named."""
    constants: list[NotJson] = []
    value = _load(body, constants)
    if constants and not keep_constants:
        _refuse_constant(value)
    return value


def _load(body: bytes, constants: list[NotJson]) -> Any:
    def constant(text: str) -> NotJson:
        constants.append(NotJson(text))
        return constants[-1]

    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=constant)
    except UnicodeDecodeError as error:
        _refuse(f"The body is not UTF-8 at byte {error.start}.", f"byte {error.start}")
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        _refuse(f"The body is not valid JSON: {error.msg} at {place}.", place)
    except RecursionError:
        _refuse("The JSON is nested too deeply to be read.", "deep nesting")
    except ValueError:
        _refuse("The JSON holds a number with too many digits.", "a number of thousands of digits")


def _refuse_constant(value: Any) -> NoReturn:
    field, text = _place_of_constant(value)
    raise InvalidRequestError(
        "value_invalid",
        f"{field} is {text}, which is not JSON.",
        field=field,
        expected="a finite number, or binary data",
        got=text,
        example=0.5,
    )


def _place_of_constant(value: Any) -> tuple[str, str]:
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, NotJson):
            return path or "body", item.text
        if isinstance(item, dict):
            prefix = f"{path}." if path else ""
            stack.extend((prefix + printable(key), child) for key, child in item.items() if _may_hold_constant(child))
        else:
            stack.extend((f"{path}[{at}]", child) for at, child in enumerate(item) if _may_hold_constant(child))
    return "body", "NaN"


def _may_hold_constant(value: Any) -> bool:
    return type(value) in (NotJson, dict, list)


def _refuse(message: str, got: str) -> NoReturn:
    raise InvalidRequestError(
        "json_invalid", message, field="body", expected="one JSON document in UTF-8", got=got
    ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidRequestError(
                "json_duplicate_key",
                "A JSON object names the same key twice.",
                field=printable(key),
                expected="each key once",
                got=printable(key),
            )
        seen.add(key)
    return value


def printable(text: str) -> str:
    """At most 100 characters of a caller's text, fit for an answer in UTF-8 (lone surrogates replaced)."""
    return text[:100].encode("utf-8", "replace").decode("utf-8")


def _survey(value: Any) -> tuple[int, int]:
    """How many key-value pairs the value has at all levels, and how many levels; plain values cost a pass in C."""
    pairs = depth = 0
    level = [value] if type(value) in _CONTAINERS else []
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            children = item
            if type(item) is dict:
                pairs += len(item)
                children = item.values()
            if not _CONTAINERS.isdisjoint(map(type, children)):
                below.extend(child for child in children if type(child) in _CONTAINERS)
        level = below
    return pairs, depth


def _depth(bare: bytes) -> int:
    codes = np.frombuffer(bare, dtype=np.uint8)
    steps = np.isin(codes, _OPENING).astype(np.int32)
    steps -= np.isin(codes, _CLOSING)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))
