"""The chain: what is hashed, and which breaks are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import msgspec
import pytest

from modelyard.audit.chain import FIRST, START, ChainCheck, Head, Verification, event_hash, seal
from modelyard.audit.event import Actor, AuditEvent, Change
from modelyard.audit.vocabulary import AuditAction

ACTOR = Actor("client:ops", "3fXkQ9aLm2Zp", "192.0.2.7", "req-1")


def chain(length: int) -> list[AuditEvent]:
    """So many events that follow each other."""
    events: list[AuditEvent] = []
    head = START
    for number in range(length):
        change = Change(AuditAction.TRAFFIC_SET, f"endpoint:e{number}", {"1": 100}, {"1": 90, "2": 10})
        events.append(seal(head, 1_700_000_000_000_000 + number, ACTOR, change))
        head = Head(events[-1].sequence, events[-1].hash)
    return events


def verdict(events: list[AuditEvent], *anchors: Head) -> Verification:
    check = ChainCheck(anchors)
    for event in events:
        check.feed(event)
    return check.finish()


def resealed(event: AuditEvent, **changes: object) -> AuditEvent:
    """The event with other content and the hash that fits it: a forger who knows the rule."""
    changed = msgspec.structs.replace(event, **changes)
    return msgspec.structs.replace(changed, hash=event_hash(changed))


def test_the_hash_is_the_documented_one() -> None:
    """Known answer, computed here by the standard library alone: sorted members, no spaces, UTF-8, without `hash`."""
    (event,) = chain(1)
    assert (event.sequence, event.previous, event.at) == (1, FIRST, "2023-11-14T22:13:20.000000Z")
    view = json.loads(json.dumps(event.view()))
    stated = view.pop("hash")
    text = json.dumps(view, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated == hashlib.sha256(text.encode()).hexdigest()
    assert stated == "58194b74b4c2d11eaaae7748a2e7d7f7c5ce862765eded9850d9fd4755685941"


def test_a_whole_chain_is_sound() -> None:
    """Every event follows the one before it, and kept heads of any age fit."""
    events = chain(5)
    found = verdict(events, *(Head(event.sequence, event.hash) for event in events))
    assert found == Verification(True, True, 5, Head(5, events[-1].hash), ())
    assert verdict([]) == Verification(True, True, 0, None, ())


TRICKS: dict[str, tuple[Callable[[list[AuditEvent]], list[AuditEvent]], set[str]]] = {
    "first removed": (lambda e: e[1:], {"events_missing"}),
    "middle removed": (lambda e: e[:2] + e[3:], {"events_missing"}),
    "last removed": (lambda e: e[:-1], {"tail_missing"}),
    "all removed": (lambda e: [], {"tail_missing"}),
    "changed": (lambda e: [*e[:2], msgspec.structs.replace(e[2], subject="endpoint:x"), *e[3:]], {"event_changed"}),
    "changed and hashed anew": (lambda e: [*e[:2], resealed(e[2], after={}), *e[3:]], {"link_broken"}),
    "swapped": (lambda e: [e[0], e[2], e[1], *e[3:]], {"events_missing"}),
    "swapped and renumbered": (
        lambda e: [e[0], resealed(e[2], sequence=2), resealed(e[1], sequence=3), *e[3:]],
        {"link_broken"},
    ),
    "inserted": (lambda e: [*e[:2], e[1], *e[2:]], {"events_missing"}),
    "tail rewritten whole": (lambda e: chain(4)[:3] + _forged(e), {"head_differs"}),
}


def _forged(events: list[AuditEvent]) -> list[AuditEvent]:
    fourth = resealed(events[3], actor="client:nobody")
    return [fourth, resealed(events[4], previous=fourth.hash)]


@pytest.mark.parametrize("trick", TRICKS)
def test_every_trick_is_found(trick: str) -> None:
    """Removal, change, reorder, insertion, a cut-off or rewritten end: each is named by its code."""
    events = chain(5)
    play, codes = TRICKS[trick]
    found = verdict(play(events), Head(5, events[-1].hash))
    assert not found.sound
    assert codes <= {problem.code for problem in found.problems}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_make_a_whole(size: int) -> None:
    """Parts that each start at the head of the one before find what one check finds, and an end only at the end."""
    events = chain(5)
    events[3] = msgspec.structs.replace(events[3], address="x")
    after, codes = START, []
    for start in range(0, 5, size):
        check = ChainCheck([Head(9, "f" * 64)], after)
        for event in events[start : start + size]:
            check.feed(event)
        found = check.finish(start + size >= 5)
        codes += [problem.code for problem in found.problems]
        assert found.head is not None
        after = found.head
    assert codes == ["event_changed", "tail_missing"]
    check = ChainCheck((), Head(2, "0" * 64))
    check.feed(events[2])
    assert [problem.code for problem in check.finish().problems] == ["link_broken"]


def test_the_problems_named_are_bounded() -> None:
    """A log that is broken everywhere names twenty places, not a million."""
    events = [msgspec.structs.replace(event, address="x") for event in chain(100)]
    found = verdict(events)
    assert (found.checked, len(found.problems)) == (100, 20)


def test_actions_have_one_form() -> None:
    """`subject:action`, lower case, each once."""
    for action in AuditAction:
        subject, colon, verb = action.partition(":")
        assert colon
        assert subject.isalpha() and verb.isalpha() and action == action.lower()  # noqa: PT018
