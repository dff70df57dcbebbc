"""The audit log in the words of callers: filters, the verdict, export. Knows no framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from modelyard.audit.chain import Head, Verification
from modelyard.audit.event import canonical
from modelyard.audit.ports import AuditFilter, AuditLog
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InvalidRequestError
from modelyard.http.forms.asking import parse_time

EXPORT_CHUNK = 500
"""Events that are in memory at once."""

Json = dict[str, Any]


def audit_filter(asked: Mapping[str, str | None], now: float) -> AuditFilter:
    """The filter for `action`, `subject`, `actor`, `since`, `until`; empty texts match all. An actor without a kind is
    a client. InvalidRequestError("parameter_invalid") for an action that nothing has."""
    given = {name: text for name, text in asked.items() if text}
    actor = given.get("actor")
    values: Json = {
        "subject": given.get("subject"),
        "actor": actor if actor is None or ":" in actor else f"client:{actor}",
    }
    if "action" in given:
        values["action"] = _action(given["action"])
    for name in ("since", "until"):
        if name in given:
            values[name] = parse_time(given[name], name, now)
    return AuditFilter(**values)


def head_view(head: Head | None) -> Json | None:
    """A head as JSON."""
    return None if head is None else {"sequence": head.sequence, "hash": head.hash}


def verification_view(found: Verification) -> Json:
    """The verdict as JSON."""
    view: Json = msgspec.to_builtins(found)
    return view


def export_events(log: AuditLog, wanted: AuditFilter) -> Iterator[bytes]:
    """All events that match, one canonical JSON object a line; one piece of bytes a chunk."""
    for events in log.export(wanted, EXPORT_CHUNK):
        yield b"".join(canonical(event.view()) + b"\n" for event in events)


def _action(text: str) -> str:
    known = [str(action) for action in AuditAction]
    if text in known:
        return text
    raise InvalidRequestError(
        "parameter_invalid",
        f"`{text[:60]}` is no action of the audit log.",
        field="action",
        expected=known,
        got=text[:60],
        example="key:create",
    )
