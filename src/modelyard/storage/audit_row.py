"""An audit event as a row of text and numbers, its place in the pages, and what is recorded of the things that
change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from modelyard.audit.event import AuditEvent, canonical, microseconds, time_text, time_us
from modelyard.audit.ports import AuditFilter
from modelyard.auth.ports import Client, Key
from modelyard.core.errors import InvalidRequestError
from modelyard.models.ports import Version
from modelyard.routing.ports import Endpoint

# fmt: off
COLUMNS = [
    "sequence", "at", "actor", "key_id", "action", "subject", "before", "after", "address", "request_id", "previous",
    "hash",
]
# fmt: on
"""The order of a row's fields."""

_CURSOR = re.compile(r"([0-9]{1,17})-([0-9]{1,17})")


def to_row(event: AuditEvent) -> dict[str, Any]:
    """The row of an event."""
    view = event.view()
    return {**view, "at": time_us(event.at), "before": _text(event.before), "after": _text(event.after)}


def to_event(row: Sequence[Any]) -> AuditEvent:
    """The event of a row's COLUMNS. What somebody wrote into it that does not belong there comes as a text: it then
    fails its hash, which is the truth."""
    read: dict[str, Any] = {name: _READ.get(name, str)(value) for name, value in zip(COLUMNS, row, strict=True)}
    return AuditEvent(**read)


def matches(event: AuditEvent, wanted: AuditFilter) -> bool:
    """Whether an event passes the filter; the definition that the SQL of `sql.audit` follows."""
    at = time_us(event.at)
    pairs = ((wanted.action, event.action), (wanted.subject, event.subject), (wanted.actor, event.actor))
    return (
        all(asked is None or asked == found for asked, found in pairs)
        and (wanted.since is None or at >= microseconds(wanted.since))
        and (wanted.until is None or at < microseconds(wanted.until))
    )


def encode_cursor(at_us: int, sequence: int) -> str:
    """The place behind an event, opaque to callers."""
    return f"{at_us}-{sequence}"


def decode_cursor(cursor: str) -> tuple[int, int]:
    """(at, sequence) of the event the page starts behind; InvalidRequestError("cursor_invalid")."""
    match = _CURSOR.fullmatch(cursor) if cursor.isascii() else None
    if match is None:
        raise InvalidRequestError(
            "cursor_invalid",
            "The cursor is none that this log gave out.",
            field="cursor",
            expected="the `cursor` of the page before",
            got=cursor[:80],
        )
    return int(match[1]), int(match[2])


def client_facts(client: Client) -> dict[str, Any]:
    """What is recorded of a client."""
    return _facts(client)


def key_facts(key: Key) -> dict[str, Any]:
    """What is recorded of a key: all but its hash."""
    facts = _facts(key)
    del facts["secret_hash"]
    return facts


def version_facts(version: Version) -> dict[str, Any]:
    """What is recorded of a version: its digest stands for all of it; `signer` only of a signed one, how it was signed
    only of a bundle's."""
    manifest = version.manifest
    names = ("signer", "signing_method", "signing_authority")
    signing = {name: getattr(manifest, name) for name in names if isinstance(getattr(manifest, name), str)}
    return signing | {
        "model": version.model,
        "version": version.version,
        "format": manifest.format,
        "digest": version.digest,
        "size_bytes": sum(file.size_bytes for file in manifest.files),
    }


def endpoint_facts(endpoint: Endpoint) -> dict[str, Any]:
    """What is recorded of an endpoint."""
    return {"model": endpoint.model, "weights": dict(endpoint.weights), "revision": endpoint.revision}


def _facts(value: msgspec.Struct) -> dict[str, Any]:
    """All fields; times as text."""
    facts = msgspec.structs.asdict(value)
    for name, found in facts.items():
        if name.endswith("_at") and isinstance(found, float):
            facts[name] = time_text(microseconds(found))
    return facts


def _text(value: Any) -> str | None:
    return None if value is None else canonical(value).decode()


def _value(text: Any) -> Any:
    try:
        return None if text is None else orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return str(text)


def _moment(at_us: Any) -> str:
    try:
        return time_text(at_us)
    except (TypeError, OverflowError, ValueError):
        return str(at_us)


_READ: Mapping[str, Callable[[Any], Any]] = {"sequence": int, "at": _moment, "before": _value, "after": _value}
