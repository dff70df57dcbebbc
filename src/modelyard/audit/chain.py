"""How events hang together, and how a break is found.

`hash` = SHA-256, in hexadecimal, of the canonical JSON (`event.canonical`) of the event without its member `hash`; its
member `previous` is the hash of the event before, sixty-four zeros for the first. Whoever changes, removes, moves or
inserts an event would have to compute all later hashes anew; an anchored head (a hash kept elsewhere) then differs.
The construction is the linked time-stamping of Haber and Stornetta (1991).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from modelyard.audit.event import Actor, AuditEvent, Change, canonical, recorded, recorded_text, time_text
from modelyard.audit.vocabulary import AuditAction

FIRST = "0" * 64
"""What the first event has as its previous hash."""
MAX_PROBLEMS = 20
"""So many breaks are named; one is enough to know."""

MAX_NAME_CHARS = 255
MAX_ADDRESS_CHARS = 64
MAX_ID_CHARS = 128


class Head(msgspec.Struct, frozen=True):
    """The last link at some moment: whoever keeps it can tell later that everything up to it is still there."""

    sequence: int
    hash: str


START = Head(0, FIRST)
"""The head of a log without events."""


class Problem(msgspec.Struct, frozen=True):
    """One break: at which event, of which kind (stable), in a sentence."""

    code: str
    sequence: int
    message: str


class Verification(msgspec.Struct, frozen=True):
    """What a check found. `sound` without any problem; `complete` if it reached the end of the log; `head` is the last
    event that it read (a part that follows starts there), None if there was none."""

    sound: bool
    complete: bool
    checked: int
    head: Head | None
    problems: tuple[Problem, ...]


def event_hash(event: AuditEvent) -> str:
    """The hash that the event must have."""
    view = event.view()
    del view["hash"]
    return hashlib.sha256(canonical(view)).hexdigest()


def seal(before: Head, at_us: int, actor: Actor, change: Change) -> AuditEvent:
    """The event that follows `before`; everything in it is bounded and free of secrets."""
    open_event = AuditEvent(
        sequence=before.sequence + 1,
        at=time_text(at_us),
        actor=recorded_text(actor.name, MAX_NAME_CHARS),
        key_id=recorded_text(actor.key_id, MAX_ADDRESS_CHARS),
        action=str(change.action),
        subject=recorded_text(change.subject, MAX_NAME_CHARS),
        before=recorded(change.before),
        after=recorded(change.after),
        address=recorded_text(actor.address, MAX_ADDRESS_CHARS),
        request_id=recorded_text(actor.request_id, MAX_ID_CHARS),
        previous=before.hash,
        hash="",
    )
    return msgspec.structs.replace(open_event, hash=event_hash(open_event))


def link(
    last: Head, kept: Head | None, at_us: int, actor: Actor, changes: Sequence[Change]
) -> tuple[AuditEvent, ...]:
    """The events of these changes, in this order, behind `last`. Where a log that has events already is met without a
    kept head, the first one says which head was found."""
    if kept is None and last.sequence:
        found = {"sequence": last.sequence, "hash": last.hash}
        changes = (Change(AuditAction.AUDIT_ANCHOR, "audit:head", None, found), *changes)
    events: list[AuditEvent] = []
    head = last
    for change in changes:
        events.append(seal(head, at_us, actor, change))
        head = Head(events[-1].sequence, events[-1].hash)
    return tuple(events)


class ChainCheck:
    """Takes the events behind `after` in the order of their sequence, then says what is wrong. `anchors` are heads kept
    elsewhere."""

    def __init__(self, anchors: Iterable[Head] = (), after: Head = START) -> None:
        self._anchors = list(anchors)
        self._at = {head.sequence: head.hash for head in self._anchors}
        self._last = after
        self._checked = 0
        self._problems: list[Problem] = []

    def feed(self, event: AuditEvent) -> None:
        """The next event."""
        number, due = event.sequence, self._last.sequence + 1
        if number != due:
            span = f"{due}" if number == due + 1 else f"{due} to {number - 1}"
            self._found("events_missing", due, f"Event {span} is missing.")
        elif event.previous != self._last.hash:
            self._found("link_broken", number, f"Event {number} does not follow event {number - 1}.")
        if event_hash(event) != event.hash:
            self._found("event_changed", number, f"Event {number} is not what was recorded.")
        anchored = self._at.get(number)
        if anchored is not None and anchored != event.hash:
            self._found("head_differs", number, f"Event {number} is not the one that the kept head names.")
        self._last = Head(number, event.hash)
        self._checked += 1

    def found(self, code: str, sequence: int, message: str) -> None:
        """A problem that somebody else saw."""
        self._found(code, sequence, message)

    def finish(self, complete: bool = True) -> Verification:
        """The verdict; `complete`: there is no event behind the last one."""
        for head in self._anchors:
            if complete and head.sequence > self._last.sequence:
                lost = f"The log ends at event {self._last.sequence}, the kept head is event {head.sequence}."
                self._found("tail_missing", head.sequence, lost)
        last = self._last if self._checked else None
        return Verification(not self._problems, complete, self._checked, last, tuple(self._problems))

    def _found(self, code: str, sequence: int, message: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(code, sequence, message))
