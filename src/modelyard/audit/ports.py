"""What the audit log needs from the world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from modelyard.audit.chain import START, Head, Verification
from modelyard.audit.event import AuditEvent, Change


class AuditFilter(msgspec.Struct, frozen=True):
    """Which events; None matches all. `actor` is `client:NAME` or `local:UID/USER`; times are UNIX seconds, `until`
    exclusive."""

    action: str | None = None
    subject: str | None = None
    actor: str | None = None
    since: float | None = None
    until: float | None = None


class AuditPage(msgspec.Struct, frozen=True):
    """Events, newest first; `cursor` leads to the next page, None after the last."""

    events: tuple[AuditEvent, ...]
    cursor: str | None


class AuditLog(Protocol):
    """The chain of events, readable, extended by whole changes only. Stores that change something extend it inside
    their own transaction; nobody else needs more than this."""

    def append(self, *changes: Change) -> tuple[AuditEvent, ...]:
        """Records changes that no store makes (a start, a refusal), all or none, by `acting.current_actor`."""

    def page(self, filter: AuditFilter, limit: int, cursor: str | None) -> AuditPage:
        """One page, newest first; InvalidRequestError("cursor_invalid")."""

    def export(self, filter: AuditFilter, chunk: int) -> Iterator[list[AuditEvent]]:
        """All that match, in the order of the chain."""

    def head(self) -> Head | None:
        """The last event of the log, None without any."""

    def verify(self, kept: Iterable[Head] = (), after: Head = START, most: int | None = None) -> Verification:
        """Checks the chain behind `after` (all of it by default), at most so many events, the anchored head, and heads
        that the caller has `kept`."""
