"""Which records a filter means, and in which order they are read.

The subject leads where there is one (a partition of its own); else an outcome that must be there (the feed of those);
else the feed of records, from which the service takes out what does not match by itself. What is left is compared with
`prediction_row.matches`, the definition that all stores follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import orjson

from modelyard.journal.ports import HAS_OUTCOME, NO_OUTCOME, RecordFilter
from modelyard.storage.dynamodb.attributes import Item, Key
from modelyard.storage.dynamodb.records.feeds import OUTCOMES, RECORDS, Feeds, Reading, Stretch
from modelyard.storage.dynamodb.records.layout import (
    GIVEN,
    RECORD,
    about,
    body_keys,
    content_of,
    given_of,
    id_of,
    is_alive,
    outcome_sort,
    pk,
)
from modelyard.storage.dynamodb.requests import Condition, Span
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.storage.prediction_row import matches, microseconds, status_range, time_text

LAST_US = 2**63 - 1
_CHUNK = 100


class Found(msgspec.Struct, frozen=True):
    """A record: where it stands, its row, the latest outcomes of its items."""

    place: str
    row: Sequence[Any]
    outcomes: list[dict[str, Any]]


class Search:
    """Reading records by a filter."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._requests = feeds.requests
        self._table = feeds.table

    def newest_first(
        self, wanted: RecordFilter, place: str | None, size: int, most_reads: int
    ) -> tuple[Iterator[Found], Reading | None]:
        """What matches before `place`, and the reading that may have ended early."""
        stretch = _stretch(wanted, place, backwards=True)
        leading = self._leading(wanted, stretch, size, most_reads)
        reading = leading if isinstance(leading, Reading) else None
        return self._matching(wanted, leading, size), reading

    def oldest_first(self, wanted: RecordFilter, size: int) -> Iterator[Found]:
        """All that matches."""
        return self._matching(wanted, self._leading(wanted, _stretch(wanted, None, backwards=False), size, None), size)

    def count(self, wanted: RecordFilter) -> int:
        """How many records match a filter that the service can apply by itself."""
        return self._feeds.count(_stretch(wanted, None, backwards=False), self._where(wanted))

    def get(self, prediction_ids: Sequence[str]) -> dict[str, Item]:
        """Records by id, as they lie there."""
        found = self._requests.get_many(self._table, [(pk(one), RECORD) for one in prediction_ids])
        now = self._now()
        return {id_of(key): item for (key, _), item in found.items() if is_alive(item, now)}

    def shown(self, items: Sequence[Item]) -> list[Found]:
        """Records with their rows and latest outcomes."""
        rest = self._requests.get_many(self._table, [key for item in items for key in body_keys(item)])
        outcomes = self._outcomes([id_of(item["pk"]) for item in items])
        return [Found(item["at"], content_of(item, rest), outcomes.get(id_of(item["pk"]), [])) for item in items]

    def _leading(self, wanted: RecordFilter, stretch: Stretch, size: int, most_reads: int | None) -> Iterable[Item]:
        if wanted.subject is not None:
            return self._about(wanted.subject, stretch) if wanted.subject else ()
        if wanted.outcome not in (None, NO_OUTCOME):
            stretch = msgspec.structs.replace(stretch, feed=OUTCOMES)
            return self._feeds.read(stretch, first=size + 1, most_reads=most_reads)
        return self._feeds.read(stretch, where=self._where(wanted), first=size + 1, most_reads=most_reads)

    def _about(self, subject: str, stretch: Stretch) -> Iterator[Item]:
        low, high = f"r#{stretch.since:020d}", f"r#{min(stretch.until, LAST_US):020d}"
        if stretch.place is not None:
            high = min(high, f"r#{stretch.place}")
        if high < low:
            return
        span = Span(about(subject), low, high, backwards=stretch.backwards)
        for item in self._requests.query_all(self._table, span):
            place = item["sk"][2:]
            if place != stretch.place:
                yield {"pk": pk(place[21:]), "at": place}

    def _matching(self, wanted: RecordFilter, leading: Iterable[Item], size: int) -> Iterator[Found]:
        asked, now = iter(leading), self._now()
        chunk_size = min(_CHUNK, size + 1)
        while chunk := list(islice(asked, chunk_size)):
            items = [item for item in self._records(wanted, chunk) if is_alive(item, now)]
            for found in self.shown(items):
                if matches(found.row, wanted, found.outcomes):
                    yield found

    def _records(self, wanted: RecordFilter, chunk: Sequence[Item]) -> list[Item]:
        """The records of what leads, in its order."""
        if wanted.outcome is not None and wanted.outcome not in (HAS_OUTCOME, NO_OUTCOME) and wanted.subject is None:
            value = wanted.outcome[1:]
            chunk = [item for item in chunk if any(given[1] == value for given in given_of(item).values())]
        if all("body" in item for item in chunk):
            return list(chunk)
        found = self._requests.get_many(self._table, [(item["pk"], RECORD) for item in chunk])
        return [found[item["pk"], RECORD] for item in chunk if (item["pk"], RECORD) in found]

    def _outcomes(self, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The latest outcome of each item, by item."""
        given = self._requests.get_many(self._table, [(pk(one), GIVEN) for one in ids])
        keys: list[Key] = [
            (key, outcome_sort(item, revision))
            for (key, _), found in given.items()
            for item, (revision, _key, _at) in sorted(given_of(found).items())
        ]
        latest = self._requests.get_many(self._table, keys)
        shown: dict[str, list[dict[str, Any]]] = {}
        for key in keys:
            if key in latest:
                shown.setdefault(id_of(key[0]), []).append(outcome_shown(latest[key]))
        return shown

    def _where(self, wanted: RecordFilter) -> Condition:
        parts = [f"(attribute_not_exists(#{EXPIRES_AT}) OR #{EXPIRES_AT} > :now)"]
        values: dict[str, Any] = {"now": int(self._now())}
        for name in ("model", "version", "client", "endpoint"):
            if (value := getattr(wanted, name)) is not None:
                parts.append(f"#{name} = :{name}")
                values[name] = value
        if wanted.status is not None:
            low, high = status_range(wanted.status)
            parts.append("#status BETWEEN :lowest AND :highest")
            values |= {"lowest": low, "highest": high}
        if wanted.items:
            parts.append("(#rows > :none OR #status < :refused)")
            values |= {"none": 0, "refused": 400}
        return Condition(" AND ".join(parts), values)

    def _now(self) -> float:
        return self._requests.clock.now()


def outcome_shown(item: Item) -> dict[str, Any]:
    """One revision of an outcome, as readers get it."""
    return {
        "item": int(item["item"]),
        "value": orjson.loads(item["value"]),
        "at": time_text(int(item["given_at"])),
        "revision": int(item["revision"]),
    }


def _stretch(wanted: RecordFilter, place: str | None, backwards: bool) -> Stretch:
    since = 0 if wanted.since is None else max(0, microseconds(wanted.since, "since"))
    until = LAST_US if wanted.until is None else max(0, microseconds(wanted.until, "until"))
    return Stretch(RECORDS, since, until, place, backwards)
