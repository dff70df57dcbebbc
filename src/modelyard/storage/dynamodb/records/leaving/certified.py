"""Deletion with a certificate.

What goes is more than a transaction takes. So the certificate and the list of what goes are written together; then
the list is worked off. A process that dies in between leaves the list, and whoever deletes next finishes it first: what
was certified is gone, and nothing goes without.

A sweep and a deletion by subject may want the same records. So each certificate moves a mark, in its transaction; one
whose mark has moved since its records were gathered is not written, and they are gathered again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from modelyard.storage.dynamodb.attributes import Item, Key, key_of, packed, parts_of, unpacked
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.dynamodb.records.feeds import RECORDS, Feeds, day_of
from modelyard.storage.dynamodb.records.layout import (
    GIVEN,
    LEAVING,
    RECORD,
    WAITING,
    at_of,
    given_of,
    id_of,
    keys_of_aside,
    keys_of_outcomes,
    keys_of_record,
    pk,
)
from modelyard.storage.dynamodb.requests import Span, put_action

MARK: Key = ("retention", "certified")
MOST_AT_ONCE = 1000
"""Records of one batch, whatever `retention.batch` says: their list goes into one transaction."""
MOST_KEYS = 50_000
"""What goes at once, outcomes included: about three megabytes of names, packed into less than one, where a transaction
takes four. One prediction alone may go beyond."""
MOST_DAYS = 60
"""Days whose records go at once: each is counted down in the transaction, which takes a hundred items."""

T = TypeVar("T")


class ChangedMeanwhileError(Exception):
    """Something was certified, or a hold came or went, since the records were gathered; nothing was written."""


class Going(msgspec.Struct):
    """What goes: keys, ids of predictions, how many records of each day; how many outcomes that are; and whether it is
    all that was gathered of."""

    keys: list[Key] = []
    ids: list[str] = []
    days: dict[str, int] = {}
    outcomes: int = 0
    complete: bool = True


class Leaving:
    """The lists of one table."""

    def __init__(self, feeds: Feeds, metadata: Metadata) -> None:
        self._feeds = feeds
        self._metadata = metadata

    def alone(self, work: Callable[[int], T]) -> T:
        """What `work`, which gathers and removes, returns; it is given the mark, and called again as often as
        something changed meanwhile. UnavailableError("store_unavailable") once the time is over."""
        deadline_s = self._metadata.deadline_s()
        attempt = 0
        while True:
            mark = self._mark()
            self.finish()
            try:
                return work(mark)
            except ChangedMeanwhileError:
                self._metadata.rest(attempt, deadline_s)
                attempt += 1

    def still_there(self, items: list[Item]) -> list[Item]:
        """Those of the items that the table has: the index that they were found by may be behind."""
        found = self._feeds.requests.get_many(self._feeds.table, map(key_of, items), ("at",))
        return [item for item in items if key_of(item) in found]

    def never_came(self, ids: list[str]) -> list[str]:
        """Those of the predictions that the table does not have."""
        found = self._feeds.requests.get_many(self._feeds.table, [(pk(one), RECORD) for one in ids], ("at",))
        return [one for one in ids if (pk(one), RECORD) not in found]

    def gather(self, records: list[Item], asides: list[Item], orphans: list[str]) -> Going:
        """All that goes with these records, with what was set aside, and the outcomes of predictions that never came;
        as many of them, in order, as a list and its transaction hold, and at least one."""
        ids = [id_of(item["pk"]) for item in records]
        given = self._feeds.requests.get_many(self._feeds.table, [(pk(one), GIVEN) for one in (*ids, *orphans)])
        keys = dict.fromkeys(key for item in asides for key in keys_of_aside(item))
        taken = outcomes = 0
        days: Counter[str] = Counter()
        for number, one in enumerate((*ids, *orphans)):
            own: list[Key] = keys_of_record(records[number]) if number < len(ids) else [(WAITING, one)]
            found = given.get((pk(one), GIVEN))
            own_outcomes = keys_of_outcomes(one, given_of(found))
            own += [(pk(one), GIVEN), *own_outcomes] if found is not None else []
            new_day = number < len(ids) and day_of(at_of(records[number]["at"])) not in days
            if taken and (len(keys) + len(own) > MOST_KEYS or (new_day and len(days) == MOST_DAYS)):
                break
            days.update([day_of(at_of(records[number]["at"]))] if number < len(ids) else [])
            keys |= dict.fromkeys(own)
            taken, outcomes = taken + 1, outcomes + len(own_outcomes)
        complete = taken == len(ids) + len(orphans)
        return Going(list(keys), ids[:taken], dict(days), outcomes, complete)

    def remove(self, going: Going, mark: int, certify: Callable[[Transaction], None]) -> None:
        """Deletes it, with the certificate that `certify` writes. ChangedMeanwhileError if the mark has moved."""
        parts = parts_of(packed(msgspec.msgpack.encode(going)))

        def write(t: Transaction) -> list[Item]:
            if self._mark() != mark:
                raise ChangedMeanwhileError
            certify(t)
            t.put(*MARK)
            t.also(*(self._feeds.noted(RECORDS, date, -count) for date, count in going.days.items()))
            name = f"{t.head.revision + 1:020d}"
            items: list[Item] = [
                {"pk": LEAVING, "sk": f"{name}#{number:04d}", "content": part, "parts": len(parts)}
                for number, part in enumerate(parts)
            ]
            t.also(*(put_action(self._feeds.table, item) for item in items))
            return items

        self._work_off(going, self._metadata.change(write))

    def finish(self) -> list[str]:
        """Works off what others left; the ids of its predictions."""
        lists: dict[str, list[Item]] = {}
        for item in self._feeds.requests.query_all(self._feeds.table, Span(LEAVING)):
            lists.setdefault(item["sk"].partition("#")[0], []).append(item)
        ids: list[str] = []
        for items in lists.values():
            if len(items) < items[0]["parts"]:  # worked off: its last parts were being removed
                self._feeds.requests.write_many(self._feeds.table, deletes=map(key_of, items))
                continue
            going = msgspec.msgpack.decode(unpacked(item["content"] for item in items), type=Going)
            self._work_off(going, items)
            ids += going.ids
        return ids

    def _mark(self) -> int:
        """Which change wrote the last certificate of this kind."""
        found = self._metadata.get(*MARK)
        return 0 if found is None else int(found["revision"])

    def _work_off(self, going: Going, items: list[Item]) -> None:
        self._feeds.requests.write_many(self._feeds.table, deletes=going.keys)
        self._feeds.requests.write_many(self._feeds.table, deletes=map(key_of, items))


def shown_counts(going: Going, asides: int) -> dict[str, Any]:
    """What a certificate says of it."""
    return {"predictions": len(going.ids), "outcomes": going.outcomes, "quarantined": asides}
