"""How a change and its event become one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from modelyard.audit.acting import current_actor
from modelyard.audit.chain import START, Head, link
from modelyard.audit.event import AuditEvent, Change, microseconds, time_us
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.clock import Clock
from modelyard.core.events import Event
from modelyard.storage.audit_row import to_row
from modelyard.storage.dynamodb.attributes import ordered
from modelyard.storage.dynamodb.metadata.transactions import Transaction
from modelyard.storage.file.audit_head import HeadFile, UnreadableHeadError
from modelyard.telemetry.logs import emit

EVENTS = "audit"
"""Partition of the events, by sequence; and their kind in the index, by time."""


class AuditTrail:
    """Extends the chain inside a transaction. Once it is durable the head file of this host follows; a crash between
    the two leaves it behind, which is sound, never ahead."""

    def __init__(self, heads: HeadFile, clock: Clock) -> None:
        self._heads = heads
        self._clock = clock

    def record(self, t: Transaction, action: AuditAction, subject: str, before: Any = None, after: Any = None) -> None:
        """Writes down one change of this transaction."""
        self.extend(t, (Change(action, subject, before, after),))

    def extend(self, t: Transaction, changes: Sequence[Change]) -> tuple[AuditEvent, ...]:
        """Writes down changes of this transaction, in this order."""
        last = t.head.last or START
        kept = self._kept()
        events = link(last, kept, microseconds(self._clock.now()), current_actor(), changes)
        for event in events:
            t.put(EVENTS, ordered(event.sequence), **to_row(event), kind=EVENTS, sort=place_of(event))
        if events:
            head = Head(events[-1].sequence, events[-1].hash)
            t.move(sequence=head.sequence, hash=head.hash)
            self._follow(t, kept, head)
        return events

    def _kept(self) -> Head | None:
        """The kept head; one that cannot be read is none that any event could be."""
        try:
            return self._heads.read()
        except UnreadableHeadError:
            return Head(-1, "")

    def _follow(self, t: Transaction, kept: Head | None, head: Head) -> None:
        """Lets the head file follow, unless its head is gone from the log: then it is the only witness."""
        if kept is None or hash_at(t, kept.sequence) == kept.hash:
            t.after_commit(partial(self._heads.advance, head))
        else:
            emit(Event.AUDIT_BROKEN, "error", kept_sequence=kept.sequence, sequence=head.sequence)


def place_of(event: AuditEvent) -> str:
    """Where an event stands among those of its kind, by time."""
    return f"{ordered(time_us(event.at))}#{ordered(event.sequence)}"


def hash_at(t: Transaction, sequence: int) -> str | None:
    """The hash of one event, None if it is not there."""
    found = t.get(EVENTS, ordered(sequence))
    return None if found is None else str(found["hash"])
