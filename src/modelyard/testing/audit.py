"""The audit log in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

from modelyard.audit.acting import current_actor
from modelyard.audit.chain import START, ChainCheck, Head, Verification, seal
from modelyard.audit.event import Actor, AuditEvent, Change, microseconds, time_us
from modelyard.audit.ports import AuditFilter, AuditPage
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.clock import Clock, SystemClock
from modelyard.storage.audit_row import decode_cursor, encode_cursor, matches


class MemoryAuditLog:
    """audit.ports.AuditLog in memory, safe for threads; `record` is what the memory stores call under their lock."""

    def __init__(self, lock: threading.RLock | None = None, clock: Clock | None = None) -> None:
        self._lock = lock or threading.RLock()
        self._clock = clock or SystemClock()
        self.events: list[AuditEvent] = []

    def record(self, action: AuditAction, subject: str, before: Any = None, after: Any = None) -> None:
        """Writes down one change."""
        self.append(Change(action, subject, before, after))

    def append(self, *changes: Change) -> tuple[AuditEvent, ...]:
        """Records changes, all or none."""
        at_us, actor = microseconds(self._clock.now()), current_actor()
        with self._lock:
            made: list[AuditEvent] = []
            for change in changes:
                made.append(seal(_head([*self.events[-1:], *made]) or START, at_us, actor, change))
            self.events += made
        return tuple(made)

    def page(self, filter: AuditFilter, limit: int, cursor: str | None) -> AuditPage:
        """One page, newest first."""
        found = sorted(self._matching(filter), key=_place, reverse=True)
        if cursor is not None:
            behind = decode_cursor(cursor)
            found = [event for event in found if _place(event) < behind]
        following = encode_cursor(*_place(found[limit - 1])) if len(found) > limit else None
        return AuditPage(tuple(found[:limit]), following)

    def export(self, filter: AuditFilter, chunk: int) -> Iterator[list[AuditEvent]]:
        """All that match, in the order of the chain, in chunks."""
        found = self._matching(filter)
        for start in range(0, len(found), chunk):
            yield found[start : start + chunk]

    def head(self) -> Head | None:
        """The last event."""
        with self._lock:
            return _head(self.events)

    def verify(self, kept: Iterable[Head] = (), after: Head = START, most: int | None = None) -> Verification:
        """Checks the chain behind `after` and the kept heads; memory has no head file."""
        check = ChainCheck(kept, after)
        behind = [event for event in self._matching(AuditFilter()) if event.sequence > after.sequence]
        for event in behind[:most]:
            check.feed(event)
        return check.finish(most is None or len(behind) <= most)

    def _matching(self, wanted: AuditFilter) -> list[AuditEvent]:
        with self._lock:
            return [event for event in self.events if matches(event, wanted)]


def audit_events(head: Head | None, count: int, begin_us: int, step_us: int) -> Iterator[AuditEvent]:
    """`count` events of a chain behind `head`, `step_us` microseconds apart, of 200 actors with 400 keys on 1000
    subjects, every action in turn."""
    last, actions = head or START, tuple(AuditAction)
    for number in range(count):
        actor = Actor(f"client:c{number % 200}", f"k{number % 400}", "192.0.2.7", f"r{number}")
        subject = f"endpoint:e{number * 7 % 1000}"
        change = Change(actions[number % len(actions)], subject, {"1": 100}, {"1": 90, "2": 10})
        event = seal(last, begin_us + number * step_us, actor, change)
        last = Head(event.sequence, event.hash)
        yield event


def _place(event: AuditEvent) -> tuple[int, int]:
    return time_us(event.at), event.sequence


def _head(events: list[AuditEvent]) -> Head | None:
    return Head(events[-1].sequence, events[-1].hash) if events else None
