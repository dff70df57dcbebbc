"""What is written down of a change, and its one spelling in bytes.

The spelling is that of RFC 8785 (JSON Canonicalization Scheme): members sorted by name, no spaces, strings in UTF-8
with the shortest escapes. To need none of its rules for numbers and exotic names, only whole numbers up to 2^53 and
ASCII names are recorded; `recorded` sees to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from pydantic import SecretStr

from modelyard.audit.vocabulary import AuditAction

MAX_CHANGE_BYTES = 65_536
"""A larger `before` or `after` is cut to its size and the first characters."""
MAX_TEXT_CHARS = 1024
_CUT_NAME = r"\u2026"
MAX_DEPTH = 12
_MAX_INTEGER = 2**53
_SHOWN_CHARS = 512

_KEY_TEXT = re.compile(r"(mdy_[0-9A-Za-z]{12}_)[0-9A-Za-z_]{8,}")
_URL_PASSWORD = re.compile(r"(?<!aws-sm)(?<!aws-ssm)(://[^/\s:@]*:)(?!aws-sm://|aws-ssm://|\d+/)[^\s\"',]*@")
"""A password, with whatever is in it; a port, and a reference to a password, stay."""
_SECRET_NAMES = frozenset({"secret", "secret_hash", "password", "text", "key", "admin_key"})
_STARS = "**********"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Actor(msgspec.Struct, frozen=True):
    """Who changes something: `client:NAME` with its key, or `local:UID/USER` at the command line. `address` is where
    the request came from, `request_id` its id; both empty at the command line."""

    name: str
    key_id: str = ""
    address: str = ""
    request_id: str = ""


class Change(msgspec.Struct, frozen=True):
    """One change: `subject` is `kind:name`, `before` and `after` are JSON values (None: there was, or is, nothing)."""

    action: AuditAction
    subject: str
    before: Any = None
    after: Any = None


class AuditEvent(msgspec.Struct, frozen=True):
    """One link of the chain. `at` is RFC 3339, UTC, microseconds; `previous` and `hash` are 64 hexadecimal digits,
    `hash` over everything else (`chain.event_hash`). `sequence` counts from 1 without a gap."""

    sequence: int
    at: str
    actor: str
    key_id: str
    action: str
    subject: str
    before: Any
    after: Any
    address: str
    request_id: str
    previous: str
    hash: str

    def view(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


def canonical(value: Any) -> bytes:
    """The one spelling of a recorded value (module docstring)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def microseconds(at_s: float) -> int:
    """UNIX seconds as whole microseconds."""
    return round(at_s * 1_000_000)


def time_text(at_us: int) -> str:
    """UNIX microseconds as RFC 3339 in UTC, always with six digits of the second."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_us(text: str) -> int:
    """What `time_text` was made of."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def recorded(value: Any) -> Any:
    """The value as it may be recorded: JSON, bounded, with a canonical spelling, without secrets."""
    found = _plain(value, 0)
    size = len(canonical(found))
    if size <= MAX_CHANGE_BYTES:
        return found
    return {"cut": canonical(found)[:_SHOWN_CHARS].decode("utf-8", "replace"), "size_bytes": size}


def recorded_text(text: str, most_chars: int) -> str:
    """A text as it may be recorded, at most so long."""
    clean = text.encode("utf-8", "replace").decode()
    if "mdy_" in clean:
        clean = _KEY_TEXT.sub(r"\1***", clean)
    clean = without_url_passwords(clean)
    return clean if len(clean) <= most_chars else clean[: most_chars - 1] + "…"


def without_url_passwords(text: str) -> str:
    """A text whose URLs have stars for their passwords."""
    return _URL_PASSWORD.sub(r"\1***@", text) if "://" in text else text


def changed_only(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both, with only the members that differ."""
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return _only(before, names), _only(after, names)


def _only(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return recorded_text(value, MAX_TEXT_CHARS)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, SecretStr):
        return _STARS
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {_name(name): _member(str(name), item, depth) for name, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in _in_order(value)]
    return recorded_text(str(value), MAX_TEXT_CHARS)


def _in_order(values: Iterable[Any]) -> Iterable[Any]:
    return sorted(values, key=str) if isinstance(values, set | frozenset) else values


def _member(name: str, value: Any, depth: int) -> Any:
    return _STARS if name in _SECRET_NAMES and value is not None else _plain(value, depth + 1)


def _number(value: float) -> int | str:
    """Whole numbers as they are; others as text, for which JSON has one spelling."""
    if isinstance(value, int) and abs(value) <= _MAX_INTEGER:
        return int(value)
    return str(value)


def _name(name: Any) -> str:
    spelled = recorded_text(str(name), MAX_TEXT_CHARS).encode("ascii", "backslashreplace").decode()
    if len(spelled) <= MAX_TEXT_CHARS:
        return spelled
    return spelled[: MAX_TEXT_CHARS - len(_CUT_NAME)] + _CUT_NAME  # an escape is longer than what it stands for
