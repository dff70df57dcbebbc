"""What happened, in the order of time: records, outcomes, and what was set aside.

A feed is read along the index `by_day`, whose partitions are the days (UTC). One partition takes about a thousand
writes a second, so a day's records and outcomes lie in SHARDS of them, by their id, and are merged when they are read.
Which days a feed has is written down in the table itself, so that nothing asks for days without anything.
"""

from __future__ import annotations

import uuid
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from modelyard.storage.dynamodb.attributes import Item, ordered
from modelyard.storage.dynamodb.refusals import ConditionFailedError
from modelyard.storage.dynamodb.requests import Condition, Requests, Span, update_action
from modelyard.storage.dynamodb.tables import BY_DAY, INDEXES, PREDICTIONS

RECORDS, OUTCOMES, ASIDE = "record", "outcome", "aside"
SHARDS: Mapping[str, int] = {RECORDS: 4, OUTCOMES: 4, ASIDE: 1}
LARGEST_PAGE = 1000
SETTLED_S = 3600.0
"""After so long the index shows what was written: it is a moment behind, minutes where it is throttled."""
_NOTE = "ADD #stored :stored, #revision :one SET #noted_at = :now"
_INDEX = (BY_DAY, *INDEXES[PREDICTIONS][BY_DAY])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_JUST_BEHIND = " "
"""Sorts behind an id and before every other one."""


class Stretch(msgspec.Struct, frozen=True):
    """Part of a feed: from `since` to before `until` (UNIX microseconds), and strictly past `place`, which is before
    it if read backwards, else behind it."""

    feed: str
    since: int = 0
    until: int = 2**63 - 1
    place: str | None = None
    backwards: bool = False


class Day(msgspec.Struct, frozen=True):
    """A day of a feed: about how many items were stored and not deleted by us (what expired by itself is not counted
    down), how often it was written to, and when last (UNIX seconds, by the writer's clock)."""

    date: str
    stored: int
    revision: int
    noted_at: float


class Feeds:
    """The feeds of one table."""

    def __init__(self, requests: Requests, table: str) -> None:
        self.requests = requests
        self.table = table

    def days(self, feed: str) -> list[Day]:
        """The days of a feed, oldest first; strongly consistent."""
        items = self.requests.query_all(self.table, Span(_days(feed)))
        return [
            Day(item["sk"], int(item["stored"]), int(item["revision"]), item.get("noted_at", 0.0)) for item in items
        ]

    def note(self, feed: str, date: str, stored: int) -> None:
        """Notes so many more items of a day, and that the day is there. A transaction costs twice as much, but one
        whose answer was lost can be sent again without being counted again."""
        if stored:
            self.requests.transact([self.noted(feed, date, stored)], str(uuid.uuid4()), self.table)
        else:
            self.requests.update(self.table, (_days(feed), date), _NOTE, None, **self._note(0))

    def noted(self, feed: str, date: str, stored: int) -> dict[str, Any]:
        """The same (or that there are fewer) as part of a transaction."""
        return update_action(self.table, (_days(feed), date), _NOTE, **self._note(stored))

    def _note(self, stored: int) -> dict[str, Any]:
        return {"stored": stored, "one": 1, "now": float(self.requests.clock.now())}

    def drop_if_empty(self, feed: str, day: Day) -> None:
        """Forgets a day without items, unless something was stored meanwhile, or so lately that the index may not show
        it yet."""
        if abs(self.requests.clock.now() - day.noted_at) < SETTLED_S:
            return
        for shard in range(SHARDS[feed]):
            span = Span(_partition(feed, day.date, shard), index=_INDEX)
            if self.requests.query(self.table, span, limit=1, count_only=True).count:
                return
        unchanged = Condition("#revision = :revision", {"revision": day.revision})
        with suppress(ConditionFailedError):  # something was, or the answer to this was lost and it is gone
            self.requests.delete(self.table, (_days(feed), day.date), unchanged)

    def count(self, stretch: Stretch, where: Condition | None = None) -> int:
        """How many items there are in a stretch."""
        return sum(
            self.requests.count(self.table, span, where)
            for date in self._dates(stretch)
            for span in _spans(stretch, date)
            if span.low <= span.high
        )

    def read(
        self,
        stretch: Stretch,
        *,
        where: Condition | None = None,
        first: int = LARGEST_PAGE,
        most_reads: int | None = None,
        only: Sequence[str] = (),
    ) -> Reading:
        """The items of a stretch in order. Pages are `first` long at first, then grow; after `most_reads` of them it
        ends, and says where."""
        return Reading(self, stretch, where, first, most_reads, only)

    def _dates(self, stretch: Stretch) -> list[str]:
        first, last = _date(stretch.since), _date(max(0, min(stretch.until - 1, _LAST_US)))
        dates = [day.date for day in self.days(stretch.feed) if first <= day.date <= last]
        if stretch.place is not None:
            own = _date(min(int(stretch.place[:20]), _LAST_US))
            dates = [date for date in dates if (date <= own if stretch.backwards else date >= own)]
        return dates[::-1] if stretch.backwards else dates


class Reading:
    """An iterator over a stretch. `stopped_at` is the place to go on past if it ended early, else None."""

    def __init__(
        self,
        feeds: Feeds,
        stretch: Stretch,
        where: Condition | None,
        first: int,
        most_reads: int | None,
        only: Sequence[str],
    ) -> None:
        self._feeds = feeds
        self._stretch = stretch
        self._where = where
        self._first = first
        self._left = most_reads
        self._only = only
        self.stopped_at: str | None = None

    def __iter__(self) -> Iterator[Item]:
        for date in self._feeds._dates(self._stretch):
            streams = [_Stream(span, self._first) for span in _spans(self._stretch, date)]
            while True:
                for stream in streams:
                    while not stream.buffer and not stream.ended:
                        if self._left == 0:
                            self.stopped_at = max(stream.frontier() for stream in streams)
                            return
                        self._fill(stream)
                heads = [stream for stream in streams if stream.buffer]
                if not heads:
                    break
                choose = max if self._stretch.backwards else min
                item = choose(heads, key=lambda stream: str(stream.buffer[0]["at"])).buffer.popleft()
                if item["at"] != self._stretch.place:  # a BETWEEN includes its ends
                    yield item

    def _fill(self, stream: _Stream) -> None:
        page = self._feeds.requests.query(
            self._feeds.table,
            stream.span,
            where=self._where,
            limit=stream.size,
            behind=stream.behind,
            only=self._only,
        )
        stream.buffer.extend(page.items)
        stream.behind, stream.ended = page.behind, page.behind is None
        stream.size = min(stream.size * 4, LARGEST_PAGE)
        if self._left is not None:
            self._left -= 1


class _Stream:
    """One shard of a day."""

    def __init__(self, span: Span, size: int) -> None:
        self.span = span
        self.size = size
        self.buffer: deque[Item] = deque()
        self.behind: dict[str, Any] | None = None
        self.ended = span.low > span.high

    def frontier(self) -> str:
        """Backwards: before this place there may be items that nobody has seen, from here on there are none."""
        if self.buffer:
            return str(self.buffer[0]["at"]) + _JUST_BEHIND
        if self.ended:
            return ""
        return self.span.high if self.behind is None else str(self.behind["at"]["S"])


_LAST_US = 253_402_300_799_000_000
"""The last second that a date can name."""


def day_of(at_us: int) -> str:
    """The day (UTC) of a time, as 2026-11-28."""
    return _date(at_us)


def partition(feed: str, at_us: int, name: str) -> str:
    """The partition of the index that something belongs to."""
    return _partition(feed, _date(at_us), zlib.crc32(name.encode()) % SHARDS[feed])


def _partition(feed: str, date: str, shard: int) -> str:
    return f"{feed}#{date}#{shard}"


def _days(feed: str) -> str:
    return f"days#{feed}"


def _date(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=max(0, min(at_us, _LAST_US)))).strftime("%Y-%m-%d")


def _spans(stretch: Stretch, date: str) -> list[Span]:
    """The stretch's part of a day, in each shard."""
    low, high = f"{ordered(stretch.since)}#", f"{ordered(stretch.until)}#"
    begin = (datetime.fromisoformat(date).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    low, high = max(low, f"{ordered(begin)}#"), min(high, ordered(begin + _DAY_US))
    if stretch.place is not None and stretch.backwards:
        high = min(high, stretch.place)
    elif stretch.place is not None:
        low = max(low, stretch.place)
    return [
        Span(_partition(stretch.feed, date, shard), low, high, _INDEX, stretch.backwards)
        for shard in range(SHARDS[stretch.feed])
    ]
