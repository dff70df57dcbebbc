"""Deletion with a certificate.

What goes is more than a transaction takes. So the certificate and the list of what goes are written together; then
the list is worked off. A process that dies in between leaves the list, and whoever deletes next finishes it first: what
was certified is gone, and nothing goes without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from modelyard.storage.dynamodb.attributes import Item, Key, key_of, packed, parts_of, unpacked
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.dynamodb.records.feeds import RECORDS, Feeds, day_of
from modelyard.storage.dynamodb.records.layout import (
    GIVEN,
    LEAVING,
    WAITING,
    at_of,
    given_of,
    id_of,
    keys_of_aside,
    keys_of_outcomes,
    keys_of_record,
    pk,
)
from modelyard.storage.dynamodb.requests import Span

MOST_AT_ONCE = 1000
"""Records of one batch, whatever `retention.batch` says: their list goes into one transaction."""
MOST_KEYS = 50_000
"""What goes at once, outcomes included: about three megabytes of names, packed into less than one, where a transaction
takes four. One prediction alone may go beyond."""


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

    def gather(self, records: list[Item], asides: list[Item], orphans: list[str]) -> Going:
        """All that goes with these records, with what was set aside, and the outcomes of predictions that never came;
        as many of them, in order, as a list holds, and at least one."""
        ids = [id_of(item["pk"]) for item in records]
        given = self._feeds.requests.get_many(self._feeds.table, [(pk(one), GIVEN) for one in (*ids, *orphans)])
        keys = dict.fromkeys(key for item in asides for key in keys_of_aside(item))
        taken = outcomes = 0
        for number, one in enumerate((*ids, *orphans)):
            own: list[Key] = keys_of_record(records[number]) if number < len(ids) else [(WAITING, one)]
            found = given.get((pk(one), GIVEN))
            own_outcomes = keys_of_outcomes(one, given_of(found))
            own += [(pk(one), GIVEN), *own_outcomes] if found is not None else []
            if taken and len(keys) + len(own) > MOST_KEYS:
                break
            keys |= dict.fromkeys(own)
            taken, outcomes = taken + 1, outcomes + len(own_outcomes)
        going = records[:taken]
        days = Counter(day_of(at_of(item["at"])) for item in going)
        complete = taken == len(ids) + len(orphans)
        return Going(list(keys), ids[:taken], dict(days), outcomes, complete)

    def remove(self, going: Going, certify: Callable[[Transaction], None]) -> None:
        """Deletes it, with the certificate that `certify` writes."""
        parts = parts_of(packed(msgspec.msgpack.encode(going)))

        def write(t: Transaction) -> list[Item]:
            certify(t)
            name = f"{t.head.revision + 1:020d}"
            items: list[Item] = [
                {"pk": LEAVING, "sk": f"{name}#{number:04d}", "content": part, "parts": len(parts)}
                for number, part in enumerate(parts)
            ]
            for item in items:
                t.also(self._feeds.table, item)
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

    def _work_off(self, going: Going, items: list[Item]) -> None:
        self._feeds.requests.write_many(self._feeds.table, deletes=going.keys)
        for date, count in going.days.items():
            self._feeds.note(RECORDS, date, -count)
        self._feeds.requests.write_many(self._feeds.table, deletes=map(key_of, items))


def shown_counts(going: Going, asides: int) -> dict[str, Any]:
    """What a certificate says of it."""
    return {"predictions": len(going.ids), "outcomes": going.outcomes, "quarantined": asides}
