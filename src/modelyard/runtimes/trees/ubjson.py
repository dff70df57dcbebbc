"""Whether a UBJSON document is whole, before a library reads it: XGBoost's reader runs past the end of one that was cut
off. Source: "Universal Binary JSON Specification", draft 12, without the types that XGBoost does not write."""

from __future__ import annotations

from collections.abc import Mapping

MAX_DEPTH = 64
_SIZES: Mapping[int, int] = {code: size for codes, size in ((b"iUC", 1), (b"I", 2), (b"ld", 4), (b"LD", 8))
                             for code in codes}  # fmt: skip
"""Bytes of a number by its marker."""
_NOTHING = b"TFZN"
_LENGTHS = b"iUIlL"
_OBJECT, _ARRAY, _TEXT, _KIND, _COUNT = b"{[S$#"
_OPEN_OBJECT, _OPEN_ARRAY = -1, -2
"""What is open until its end mark; an array that is counted is the number of values that it still lacks."""
_ENDS: Mapping[int, int] = {_OPEN_OBJECT: ord("}"), _OPEN_ARRAY: ord("]")}


class _BrokenError(Exception):
    """The document ends too early, or is none."""


def is_whole(data: bytes) -> bool:
    """Whether the bytes are one whole object and nothing after it but white space."""
    try:
        at = _walk(data)
    except (_BrokenError, IndexError):
        return False
    return not data[at:].strip()


def _walk(data: bytes) -> int:
    """The place after the object at the beginning."""
    if data[0] != _OBJECT:
        raise _BrokenError
    at, open_ = 1, [_OPEN_OBJECT]
    while open_:
        left = open_[-1]
        if left == 0 or (left < 0 and data[at] == _ENDS[left]):
            open_.pop()
            at += left < 0
            continue
        if left == _OPEN_OBJECT:
            at = _text(data, at)
        elif left > 0:
            open_[-1] -= 1
        at, opened = _value(data, at)
        if opened is not None:
            open_.append(opened)
        if len(open_) > MAX_DEPTH:
            raise _BrokenError
    return at


def _value(data: bytes, at: int) -> tuple[int, int | None]:
    """The place after a value, or after the beginning of one that holds others, and then how many."""
    marker = data[at]
    if marker == _OBJECT:
        return at + 1, _OPEN_OBJECT
    if marker == _ARRAY:
        return _array(data, at + 1)
    if marker == _TEXT:
        return _text(data, at + 1), None
    return _within(data, at + 1 + (0 if marker in _NOTHING else _size(marker))), None


def _array(data: bytes, at: int) -> tuple[int, int | None]:
    if data[at] == _KIND:
        return _typed(data, at + 1), None
    if data[at] != _COUNT:
        return at, _OPEN_ARRAY
    count, at = _count(data, at + 1)
    return at, count


def _typed(data: bytes, at: int) -> int:
    """After an array of one type: its marker, `#`, the count, the numbers."""
    size = _size(data[at])
    if data[at + 1] != _COUNT:
        raise _BrokenError
    count, at = _count(data, at + 2)
    return _within(data, at + count * size)


def _text(data: bytes, at: int) -> int:
    size, at = _count(data, at)
    return _within(data, at + size)


def _count(data: bytes, at: int) -> tuple[int, int]:
    if data[at] not in _LENGTHS:
        raise _BrokenError
    end = _within(data, at + 1 + _size(data[at]))
    count = int.from_bytes(data[at + 1 : end], "big", signed=data[at] != ord("U"))
    if count < 0:
        raise _BrokenError
    return count, end


def _size(marker: int) -> int:
    if marker not in _SIZES:
        raise _BrokenError
    return _SIZES[marker]


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise _BrokenError
    return at
