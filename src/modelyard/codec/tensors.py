"""One tensor at a time: from JSON values, from little-endian bytes, and back.

`field` is the caller's name of the place (`inputs[0].data`); every refusal says it, what was expected and what came.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from modelyard.codec.json_strict import NotJson, printable
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import DATATYPES, Array

MAX_ELEMENTS = 2**31 - 1
MAX_EMPTY_ELEMENTS = 1_000_000
_FLOATS = frozenset(("FP16", "FP32", "FP64"))
_ALLOWED: dict[str, frozenset[type]] = {
    name: frozenset((int, float)) if name in _FLOATS else frozenset((int,)) for name in DATATYPES
} | {"BYTES": frozenset((str,)), "BOOL": frozenset((bool,))}
_WORDS = {"BYTES": "a string", "BOOL": "true or false"}
_EXAMPLES: dict[str, Any] = {"BYTES": "text", "BOOL": True}


def check_shape(shape: Any, field: str) -> tuple[int, ...]:
    """The shape as a tuple. Raises shape_invalid unless it is a list of counts whose product is bounded."""
    if type(shape) is not list or not all(type(dim) is int and 0 <= dim <= MAX_ELEMENTS for dim in shape):
        _bad_shape(shape, field, f"a list of whole numbers from 0 to {MAX_ELEMENTS}")
    limit = MAX_ELEMENTS if 0 not in shape else MAX_EMPTY_ELEMENTS
    if len(shape) > 32 or math.prod(dim or 1 for dim in shape) > limit:
        _bad_shape(shape, field, f"at most 32 dimensions and {limit} elements")
    return tuple(shape)


def _bad_shape(shape: Any, field: str, expected: str) -> NoReturn:
    raise InvalidRequestError(
        "shape_invalid", f"{field} is not a shape.", field=field, expected=expected, got=shown(shape), example=[1, 30]
    )


def from_json(data: Any, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """A writable tensor from flat or nested JSON data.

    Raises InvalidRequestError: field_type, element_count_mismatch, value_invalid, value_out_of_range, and
    datatype_mismatch for FP16, which the protocol carries in binary only.
    """
    if datatype == "FP16":
        raise InvalidRequestError(
            "datatype_mismatch",
            f"{field}: FP16 cannot travel as JSON; send it as binary data.",
            field=field,
            expected="binary data (parameters.binary_data_size)",
            got="FP16 as JSON",
        )
    flat = flatten(data, shape, field)
    return from_values(flat, datatype, field).reshape(shape)


def flatten(data: Any, shape: tuple[int, ...], field: str) -> list[Any]:
    """The elements in row-major order; nested data must have exactly the natural shape."""
    if type(data) is not list:
        raise InvalidRequestError(
            "field_type", f"{field} must be a list.", field=field, expected="a list", got=shown(data), example=[0]
        )
    count = math.prod(shape)
    if not any(type(value) is list for value in data[:1]) and list not in set(map(type, data)):
        if len(data) != count:
            _bad_count(field, f"{count} elements for shape {list(shape)}", len(data))
        return data
    level: list[Any] = [data]
    for axis, dim in enumerate(shape):
        for part in level:
            if type(part) is not list or len(part) != dim:
                got = len(part) if type(part) is list else shown(part)
                _bad_count(field, f"lists of {dim} in dimension {axis} of shape {list(shape)}", got)
        level = list(chain.from_iterable(level))
    return level


def _bad_count(field: str, expected: str, got: Any) -> NoReturn:
    raise InvalidRequestError(
        "element_count_mismatch",
        f"{field} does not have as many elements as its shape says.",
        field=field,
        expected=expected,
        got=got,
    )


def from_values(flat: Sequence[Any], datatype: str, field: str) -> Array:
    """A one-dimensional writable tensor from plain values, each checked against type and range."""
    if not _ALLOWED[datatype].issuperset(map(type, flat)) and not (datatype == "BOOL" and all(map(_is_bit, flat))):
        _bad_value(flat, datatype, field)
    if datatype == "BYTES":
        return _from_texts(flat, field)
    dtype = DATATYPES[datatype]
    try:
        if dtype.kind != "f":
            return np.array(flat, dtype=dtype)
        wide = np.array(flat, dtype=np.float64)
    except OverflowError:
        _out_of_range(flat, datatype, field)
    with np.errstate(over="ignore"):
        result = wide.astype(dtype, copy=False)
    if not np.isfinite(result).all():
        _out_of_range(flat, datatype, field)
    return result


def _is_bit(value: Any) -> bool:
    return type(value) is bool or (type(value) is int and value in (0, 1))


def _from_texts(flat: Sequence[Any], field: str) -> Array:
    result = np.empty(len(flat), dtype=np.object_)
    try:
        result[:] = [text.encode() for text in flat]
    except UnicodeEncodeError:
        _refuse_value(field, "text in UTF-8, or binary data", "a lone surrogate", "text")
    return result


def _bad_value(flat: Sequence[Any], datatype: str, field: str) -> NoReturn:
    allowed = _ALLOWED[datatype]
    for index, value in enumerate(flat):
        if type(value) in allowed or (datatype == "BOOL" and _is_bit(value)):
            continue
        place = f"{field}[{index}]" if len(flat) > 1 or field.endswith("data") else field
        if type(value) is float and math.isfinite(value) and abs(value) >= 2**63:
            _refuse_range(place, datatype, value)
        word = _WORDS.get(datatype, "a number" if datatype in _FLOATS else "a whole number")
        _refuse_value(place, f"{word} ({datatype})", shown(value), _EXAMPLES.get(datatype, 0))
    raise AssertionError("unreachable: called only with a bad value")


def _refuse_value(field: str, expected: str, got: Any, example: Any) -> NoReturn:
    raise InvalidRequestError(
        "value_invalid", f"{field} must be {expected}.", field=field, expected=expected, got=got, example=example
    )


def _out_of_range(flat: Sequence[Any], datatype: str, field: str) -> NoReturn:
    low, high = limits(datatype)
    for index, value in enumerate(flat):
        if not low <= value <= high:
            _refuse_range(f"{field}[{index}]" if len(flat) > 1 or field.endswith("data") else field, datatype, value)
    _refuse_range(field, datatype, None)


def _refuse_range(field: str, datatype: str, value: Any) -> NoReturn:
    low, high = limits(datatype)
    raise InvalidRequestError(
        "value_out_of_range",
        f"{field} is outside the range of {datatype}.",
        field=field,
        expected=f"{datatype}: {low} to {high}",
        got=shown(value),
    )


def limits(datatype: str) -> tuple[Any, Any]:
    """The least and the greatest finite value of a numeric datatype."""
    dtype = DATATYPES[datatype]
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    if dtype.kind == "b":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def from_bytes(blob: memoryview, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """A writable tensor from little-endian, row-major bytes (Open Inference Protocol, "Binary Tensor Data").

    Raises InvalidRequestError: binary_size_mismatch, value_invalid (a BOOL byte other than 0 and 1).
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _from_counted(blob, count, field).reshape(shape)
    dtype = DATATYPES[datatype].newbyteorder("<")
    if count * dtype.itemsize != len(blob):
        bad_size(field, f"{count * dtype.itemsize} bytes for shape {list(shape)} of {datatype}", len(blob))
    if datatype == "BOOL" and count:
        highest = int(np.frombuffer(blob, dtype=np.uint8).max())
        if highest > 1:
            _refuse_value(field, "bytes 0 or 1 (BOOL)", highest, 1)
    return np.frombuffer(blob, dtype=dtype).astype(DATATYPES[datatype]).reshape(shape)


def _from_counted(blob: memoryview, count: int, field: str) -> Array:
    """BYTES: each element is a little-endian uint32 length and that many bytes."""
    if count * 4 > len(blob):
        bad_size(field, f"at least {count * 4} bytes for {count} elements of BYTES", len(blob))
    result = np.empty(count, dtype=np.object_)
    position = 0
    for index in range(count):
        if position + 4 > len(blob):
            bad_size(f"{field}[{index}]", "4 bytes of length", len(blob) - position)
        (size,) = struct.unpack_from("<I", blob, position)
        position += 4
        if position + size > len(blob):
            bad_size(f"{field}[{index}]", f"{size} bytes", len(blob) - position)
        result[index] = bytes(blob[position : position + size])
        position += size
    if position != len(blob):
        bad_size(field, f"{position} bytes for {count} elements of BYTES", len(blob))
    return result


def bad_size(field: str, expected: str, got: int) -> NoReturn:
    """Raises binary_size_mismatch: a blob is not as long as it was said to be."""
    raise InvalidRequestError(
        "binary_size_mismatch",
        f"{field}: the binary data is not as long as it should be.",
        field=field,
        expected=expected,
        got=f"{got} bytes",
    )


def to_bytes(array: Array, datatype: str) -> bytes:
    """The tensor as little-endian, row-major bytes; BYTES elements with their lengths before them."""
    if datatype != "BYTES":
        return array.astype(DATATYPES[datatype].newbyteorder("<"), copy=False).tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        element = as_bytes(value)
        parts.append(struct.pack("<I", len(element)))
        parts.append(element)
    return b"".join(parts)


def as_bytes(value: Any) -> bytes:
    """A BYTES element as bytes; runtimes hand out `str` as well."""
    return value if isinstance(value, bytes) else str(value).encode()


def as_text(value: Any) -> Any:
    """A BYTES element as JSON: its text, or `{"base64": "…"}` where it is not UTF-8."""
    element = as_bytes(value)
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(element).decode()}


def shown(value: Any) -> Any:
    """A caller's value as it may stand in an error: short, and valid JSON."""
    if isinstance(value, NotJson):
        return value.text
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return "an object" if isinstance(value, dict) else printable(str(value)) if _plain(value) else "a list"


def _plain(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(v) in (int, float) for v in value)
