"""Reading and checking the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select

from modelyard.audit.chain import START, ChainCheck, Head, Verification
from modelyard.audit.event import AuditEvent, Change, microseconds
from modelyard.audit.ports import AuditFilter, AuditPage
from modelyard.storage.audit_row import COLUMNS, decode_cursor, encode_cursor, to_event
from modelyard.storage.file.audit_head import HeadFile, UnreadableHeadError
from modelyard.storage.sql import schema
from modelyard.storage.sql.audit.trail import AuditTrail, last_head
from modelyard.storage.sql.database import Database

_E = schema.audit_events.c
_BEFORE_ALL = -(2**63)
VERIFY_CHUNK = 1000
"""Events of one transaction of a check: a long one would keep the WAL from being copied back."""


class SqlAuditLog:
    """audit.ports.AuditLog over a database."""

    def __init__(self, database: Database, trail: AuditTrail, heads: HeadFile) -> None:
        self._database = database
        self._trail = trail
        self._heads = heads

    def append(self, *changes: Change) -> tuple[AuditEvent, ...]:
        """Records changes that no store makes, all or none."""
        with self._database.write() as connection:
            return self._trail.extend(connection, changes)

    def page(self, filter: AuditFilter, limit: int, cursor: str | None) -> AuditPage:
        """One page, newest first."""
        wanted = _rows().where(*_conditions(filter)).order_by(_E.at.desc(), _E.sequence.desc()).limit(limit + 1)
        if cursor is not None:
            at_us, sequence = decode_cursor(cursor)
            wanted = wanted.where(_E.at <= at_us, or_(_E.at < at_us, _E.sequence < sequence))
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        following = encode_cursor(rows[limit - 1][1], rows[limit - 1][0]) if len(rows) > limit else None
        return AuditPage(tuple(map(to_event, rows[:limit])), following)

    def export(self, filter: AuditFilter, chunk: int) -> Iterator[list[AuditEvent]]:
        """All that match, in the order of the chain; every chunk is a transaction of its own."""
        return self._behind(_BEFORE_ALL, _conditions(filter), chunk)

    def _behind(self, last: int, conditions: list[ColumnElement[bool]], chunk: int) -> Iterator[list[AuditEvent]]:
        while True:
            wanted = _rows().where(_E.sequence > last, *conditions).order_by(_E.sequence).limit(chunk)
            with self._database.read() as connection:
                events = [to_event(row) for row in connection.execute(wanted)]
            if events:
                yield events
                last = events[-1].sequence
            if len(events) < chunk:
                return

    def head(self) -> Head | None:
        """The last event of the log."""
        with self._database.read() as connection:
            return last_head(connection)

    def verify(self, kept: Iterable[Head] = (), after: Head = START, most: int | None = None) -> Verification:
        """Checks the chain behind `after`, at most so many events, the head file, and heads that the caller kept."""
        # The file first: events that come meanwhile are then behind its head, not beyond the end of the log.
        anchored, unreadable = self._anchored()
        check = ChainCheck([*([anchored] if anchored else []), *kept], after)
        first = after.sequence if after.sequence else _BEFORE_ALL
        events = chain.from_iterable(self._behind(first, [], VERIFY_CHUNK))
        for event in islice(events, most):
            check.feed(event)
        complete = most is None or next(events, None) is None
        if unreadable:
            check.found("head_unreadable", 0, f"The head file cannot be read: {unreadable}.")
        elif anchored is None and self.head() is not None and self._anchored()[0] is None:
            check.found("head_missing", 0, "The head file is missing: an end that was cut off could not be noticed.")
        return check.finish(complete)

    def _anchored(self) -> tuple[Head | None, str]:
        try:
            return self._heads.read(), ""
        except UnreadableHeadError as error:
            return None, str(error) or "it is damaged"


def _rows() -> Select[Any]:
    return select(*(_E[name] for name in COLUMNS))


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    # A subject has fewer events than an actor or an action may have: beside it theirs must not be the index that is
    # read, which an expression in place of the column sees to.
    named: list[tuple[ColumnElement[str], str | None]] = [(_E.action, wanted.action), (_E.actor, wanted.actor)]
    if wanted.subject is not None:
        named = [(_E.subject, wanted.subject), *((column.concat(""), value) for column, value in named)]
    conditions: list[ColumnElement[bool]] = [column == value for column, value in named if value is not None]
    if wanted.since is not None:
        conditions.append(_E.at >= microseconds(wanted.since))
    if wanted.until is not None:
        conditions.append(_E.at < microseconds(wanted.until))
    return conditions
