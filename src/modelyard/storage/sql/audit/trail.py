"""How a change and its event become one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, insert, select

from modelyard.audit.acting import current_actor
from modelyard.audit.chain import START, Head, link
from modelyard.audit.event import AuditEvent, Change, microseconds
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.clock import Clock
from modelyard.core.events import Event
from modelyard.storage.audit_row import to_row
from modelyard.storage.file.audit_head import HeadFile, UnreadableHeadError
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import after_commit
from modelyard.telemetry.logs import emit

_E = schema.audit_events.c


class AuditTrail:
    """Extends the chain inside a write transaction, which is alone from its begin on: two processes never follow the
    same event. Once the transaction is durable the head file follows; a crash between the two leaves it behind, which
    is sound, never ahead."""

    def __init__(self, heads: HeadFile, clock: Clock) -> None:
        self._heads = heads
        self._clock = clock

    def record(
        self, connection: Connection, action: AuditAction, subject: str, before: Any = None, after: Any = None
    ) -> None:
        """Writes down one change of this transaction."""
        self.extend(connection, (Change(action, subject, before, after),))

    def extend(self, connection: Connection, changes: Sequence[Change]) -> tuple[AuditEvent, ...]:
        """Writes down changes of this transaction, in this order."""
        last = last_head(connection) or START
        kept = self._kept()
        events = link(last, kept, microseconds(self._clock.now()), current_actor(), changes)
        if events:
            connection.execute(insert(schema.audit_events), list(map(to_row, events)))
            self._follow(connection, kept, Head(events[-1].sequence, events[-1].hash))
        return events

    def _kept(self) -> Head | None:
        """The kept head; one that cannot be read is none that any event could be."""
        try:
            return self._heads.read()
        except UnreadableHeadError:
            return Head(-1, "")

    def _follow(self, connection: Connection, kept: Head | None, head: Head) -> None:
        """Lets the head file follow, unless its head is gone from the log: then it is the only witness."""
        if kept is None or hash_at(connection, kept.sequence) == kept.hash:
            after_commit(connection, partial(self._heads.advance, head))
        else:
            emit(Event.AUDIT_BROKEN, "error", kept_sequence=kept.sequence, sequence=head.sequence)


def last_head(connection: Connection) -> Head | None:
    """The last event, None without any."""
    row = connection.execute(select(_E.sequence, _E.hash).order_by(_E.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else Head(row[0], row[1])


def hash_at(connection: Connection, sequence: int) -> str | None:
    """The hash of one event, None if it is not there."""
    return connection.scalar(select(_E.hash).where(_E.sequence == sequence))
