"""Items as dicts of text, numbers and bytes, and as the service's JSON spells them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

Item = dict[str, Any]
Key = tuple[str, str]
"""Partition and sort key, `pk` and `sk` in both tables."""

MOST_PARTITION_BYTES, MOST_SORT_BYTES = 2048, 1024
PART_BYTES = 320 * 1024
"""An item holds 400 KB with all its names; what is longer goes into several."""
_LEVEL = 1
_PLACES = 20
"""Digits of a number in a sort key: text then sorts as the numbers do."""


def encode(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The item on its way out; None is no attribute."""
    return {name: _typed(value) for name, value in item.items() if value is not None}


def decode(item: Mapping[str, Mapping[str, Any]]) -> Item:
    """The item that came."""
    return {name: _plain(*next(iter(value.items()))) for name, value in item.items()}


def encode_key(key: Key) -> dict[str, dict[str, str]]:
    """The key of an item."""
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def key_of(item: Mapping[str, Any]) -> Key:
    """The key of a decoded item."""
    return item["pk"], item["sk"]


def is_possible(key: Key) -> bool:
    """Whether an item can have this key: callers ask for names of any length, and for ones that are no Unicode."""
    try:
        partition, sort = key[0].encode(), key[1].encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(partition) <= MOST_PARTITION_BYTES and 0 < len(sort) <= MOST_SORT_BYTES


def ordered(number: int) -> str:
    """A number in a sort key; below zero counts as zero."""
    return f"{max(0, number):0{_PLACES}d}"


def packed(content: bytes) -> bytes:
    """Compressed."""
    return zlib.compress(content, _LEVEL)


def unpacked(parts: Iterable[bytes]) -> bytes:
    """What `packed` was given, of its parts in order."""
    return zlib.decompress(b"".join(parts))


def parts_of(content: bytes, size: int = PART_BYTES) -> list[bytes]:
    """The content in parts that fit into an item; at least one."""
    return [content[start : start + size] for start in range(0, len(content), size)] or [b""]


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bytes):
        return {"B": value}
    return {"N": repr(value)}


def _plain(kind: str, value: Any) -> Any:
    if kind != "N":
        return value
    return int(value) if value.lstrip("-").isdigit() else float(value)
