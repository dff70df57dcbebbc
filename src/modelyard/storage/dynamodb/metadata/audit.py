"""Reading and checking the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from modelyard.audit.chain import START, ChainCheck, Head, Verification
from modelyard.audit.event import AuditEvent, Change, microseconds
from modelyard.audit.ports import AuditFilter, AuditPage
from modelyard.storage.audit_row import COLUMNS, decode_cursor, encode_cursor, to_event
from modelyard.storage.dynamodb.attributes import Item, ordered
from modelyard.storage.dynamodb.metadata.trail import EVENTS, AuditTrail, place_of
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.requests import Condition, Span
from modelyard.storage.dynamodb.tables import BY_KIND, INDEXES, METADATA
from modelyard.storage.file.audit_head import HeadFile, UnreadableHeadError

VERIFY_CHUNK = 1000
MOST_READS = 20
"""Queries of one page: each reads a megabyte of events. A page that found too few by then ends short, with a
cursor."""
_TIMELINE = (BY_KIND, *INDEXES[METADATA][BY_KIND])
_END = "~"
"""Sorts behind all that a place is made of."""


class DynamoAuditLog:
    """audit.ports.AuditLog over the table of metadata. Pages come from the index, which is a moment behind; exports and
    checks from the table itself."""

    def __init__(self, metadata: Metadata, trail: AuditTrail, heads: HeadFile) -> None:
        self._metadata = metadata
        self._trail = trail
        self._heads = heads

    def append(self, *changes: Change) -> tuple[AuditEvent, ...]:
        """Records changes that no store makes, all or none."""
        if not changes:
            return ()
        return self._metadata.change(lambda t: self._trail.extend(t, changes))

    def page(self, filter: AuditFilter, limit: int, cursor: str | None) -> AuditPage:
        """One page, newest first."""
        span = _span(filter, None if cursor is None else decode_cursor(cursor))
        where = _named(filter)
        found: list[Item] = []
        behind: dict[str, Any] | None = None
        for _ in range(MOST_READS):
            wanted = limit + 1 if where is None else None
            page = self._metadata.requests.query(self._metadata.table, span, where=where, limit=wanted, behind=behind)
            found += page.items
            behind = page.behind
            if behind is None or len(found) > limit:
                break
        if len(found) > limit:
            last = to_event(_row(found[limit - 1]))
            return _page(found[:limit], *map(int, place_of(last).split("#")))
        return _page(found, *map(int, behind["sort"]["S"].split("#"))) if behind else _page(found)

    def export(self, filter: AuditFilter, chunk: int) -> Iterator[list[AuditEvent]]:
        """All that match, in the order of the chain."""
        events = (to_event(_row(item)) for item in self._behind(0, _all_of(filter)))
        while several := list(islice(events, chunk)):
            yield several

    def head(self) -> Head | None:
        """The last event of the log."""
        return self._metadata.head().last

    def verify(self, kept: Iterable[Head] = (), after: Head = START, most: int | None = None) -> Verification:
        """Checks the chain behind `after`, at most so many events, the head file and the table's own head, and heads
        that the caller kept; and that each event is where pages look for it."""
        # The heads first: events that come meanwhile are then behind them, not beyond the end of the log.
        anchored, unreadable = self._anchored()
        own = self.head()
        check = ChainCheck([*(head for head in (anchored, own) if head is not None), *kept], after)
        items = self._behind(after.sequence, None)
        for item in islice(items, most):
            event = to_event(_row(item))
            check.feed(event)
            if not _is_in_its_place(item, event):
                said = f"Event {event.sequence} is not where its time and number put it."
                check.found("event_changed", event.sequence, said)
        complete = most is None or next(items, None) is None
        if unreadable:
            check.found("head_unreadable", 0, f"The head file cannot be read: {unreadable}.")
        elif anchored is None and own is not None and self._anchored()[0] is None:
            check.found("head_missing", 0, "The head file is missing: an end that was cut off could not be noticed.")
        return check.finish(complete)

    def _behind(self, last: int, where: Condition | None) -> Iterator[Item]:
        # From the beginning everything: whatever somebody put before the first event is found too.
        low = f"{ordered(last)}{_END}" if last > 0 else "\x00"
        return self._metadata.requests.query_all(
            self._metadata.table, Span(EVENTS, low), where=where, limit=VERIFY_CHUNK
        )

    def _anchored(self) -> tuple[Head | None, str]:
        try:
            return self._heads.read(), ""
        except UnreadableHeadError as error:
            return None, str(error) or "it is damaged"


def _row(item: Item) -> list[Any]:
    return [item.get(name) for name in COLUMNS]


def _is_in_its_place(item: Item, event: AuditEvent) -> bool:
    try:
        place = place_of(event)
    except ValueError:  # no time at all: its hash has told already
        return True
    return (item["sk"], item.get("kind"), item.get("sort")) == (ordered(event.sequence), EVENTS, place)


def _page(items: list[Item], *place: int) -> AuditPage:
    events = tuple(to_event(_row(item)) for item in items)
    return AuditPage(events, encode_cursor(*place) if place else None)


def _span(wanted: AuditFilter, behind: tuple[int, int] | None) -> Span:
    low = "0" if wanted.since is None else f"{ordered(microseconds(wanted.since))}#"
    high = _END if wanted.until is None else ordered(microseconds(wanted.until))
    if behind is not None:
        at_us, sequence = behind
        # The place just before (at, sequence); in a microsecond without an event before it, the microsecond's begin.
        high = min(high, f"{ordered(at_us)}#{ordered(sequence - 1)}" if sequence > 0 else f"{ordered(at_us)}#")
    return Span(EVENTS, min(low, high), high, _TIMELINE, backwards=True)


def _named(wanted: AuditFilter) -> Condition | None:
    pairs = (("action", wanted.action), ("subject", wanted.subject), ("actor", wanted.actor))
    given = {name: value for name, value in pairs if value is not None}
    return Condition(" AND ".join(f"#{name} = :{name}" for name in given), given) if given else None


def _all_of(wanted: AuditFilter) -> Condition | None:
    named = _named(wanted)
    parts, values = ([named.expression], dict(named.values)) if named is not None else ([], {})
    if wanted.since is not None:
        parts, values = [*parts, "#at >= :since"], {**values, "since": microseconds(wanted.since)}
    if wanted.until is not None:
        parts, values = [*parts, "#at < :until"], {**values, "until": microseconds(wanted.until)}
    return Condition(" AND ".join(parts), values) if parts else None
