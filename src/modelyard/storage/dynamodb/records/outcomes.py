"""Outcomes in the table: one item per revision, and one per prediction that says which are the latest."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from modelyard.journal.outcomes import outcome_key, value_text
from modelyard.journal.ports import Outcome, StoredOutcome, Target, items_of
from modelyard.storage.dynamodb.attributes import Item
from modelyard.storage.dynamodb.records.feeds import OUTCOMES, Feeds, day_of, partition
from modelyard.storage.dynamodb.records.layout import (
    GIVEN,
    RECORD,
    WAITING,
    at_of,
    given_of,
    id_of,
    is_alive,
    outcome_sort,
    packed_given,
    pk,
)
from modelyard.storage.dynamodb.records.search import outcome_shown
from modelyard.storage.dynamodb.refusals import ConditionFailedError, TookTooLongError, refusal
from modelyard.storage.dynamodb.requests import Condition, Span, put_action
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.storage.prediction_row import microseconds, time_text

PER_TRANSACTION = 30
"""Outcomes stored at once: each is at most three items, and a transaction takes a hundred."""
_RECORD_NAMES = ("day", "at", "client", "endpoint", "rows", "status", EXPIRES_AT)


class DynamoOutcomeStore:
    """journal.ports.OutcomeStore over the table of predictions."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._requests = feeds.requests
        self._table = feeds.table

    def put(self, outcomes: Sequence[Outcome], recorded_at: float) -> list[StoredOutcome]:
        """Stores all of them, in order, some in a transaction."""
        stored: list[StoredOutcome] = []
        recorded_us = microseconds(recorded_at, "recorded_at")
        for start in range(0, len(outcomes), PER_TRANSACTION):
            stored += self._put_some(outcomes[start : start + PER_TRANSACTION], recorded_us)
        return stored

    def targets(self, ids: Sequence[str]) -> dict[str, Target]:
        """Those of the requests that are in the log."""
        return {
            id_of(item["pk"]): Target(item["client"], item["endpoint"], items_of(item["rows"], item["status"]))
            for item in self._records(ids)
        }

    def history(self, prediction_id: str) -> list[dict[str, Any]]:
        """All revisions, oldest first within an item."""
        now = self._requests.clock.now()
        items = self._requests.query_all(self._table, Span(pk(prediction_id), "outcome#", "outcome#~"))
        return [
            {
                **outcome_shown(item),
                "recorded_at": time_text(int(item["recorded_at"])),
                "client": item["client"],
                "key_id": item["key_id"],
            }
            for item in items
            if is_alive(item, now)
        ]

    def join(self, ids: Iterable[str]) -> None:
        """Tells outcomes that came before the records of these predictions when the predictions were, so that the feed
        has them. What waits of predictions that are not there goes on waiting."""
        wanted = set(ids)
        if not wanted:
            return
        waiting = [item["sk"] for item in self._requests.query_all(self._table, Span(WAITING)) if item["sk"] in wanted]
        for record in self._records(waiting):
            self._join(id_of(record["pk"]), record)

    def _join(self, prediction_id: str, record: Item) -> None:
        at_us = at_of(record["at"])
        self._feeds.note(OUTCOMES, day_of(at_us), 0)
        change, values = "SET #day = :day, #at = :at", {"at": record["at"]}
        values["day"] = partition(OUTCOMES, at_us, prediction_id)
        if record.get(EXPIRES_AT) is not None:
            change, values = f"{change}, #{EXPIRES_AT} = :end", {**values, "end": record[EXPIRES_AT]}
        with suppress(ConditionFailedError):  # deleted meanwhile
            self._requests.update(
                self._table, (pk(prediction_id), GIVEN), change, Condition("attribute_exists(#pk)"), **values
            )
        self._requests.delete(self._table, (WAITING, prediction_id))

    def _put_some(self, outcomes: Sequence[Outcome], recorded_us: int) -> list[StoredOutcome]:
        ids = list(dict.fromkeys(outcome.prediction_id for outcome in outcomes))
        deadline_s = self._requests.clock.monotonic() + self._requests.timeout_s
        attempt = 0
        while True:
            records = {id_of(item["pk"]): item for item in self._records(ids)}
            given = self._requests.get_many(self._table, [(pk(one), GIVEN) for one in ids])
            made = _Change(records, {id_of(key[0]): item for key, item in given.items()}, recorded_us)
            stored = [made.add(outcome) for outcome in outcomes]
            try:
                self._write(made)
            except ConditionFailedError:  # somebody gave one of these meanwhile
                if self._requests.clock.monotonic() >= deadline_s:
                    raise refusal(TookTooLongError(), self._table, "dynamodb:PutItem") from None
                self._requests.pause(attempt)
                attempt += 1
                continue
            # A record that was stored meanwhile did not see them wait: one of the two sees the other.
            self.join([one for one in made.changed if one not in records])
            return stored

    def _write(self, made: _Change) -> None:
        if not made.changed:
            return
        for date in {day_of(at_of(made.records[one]["at"])) for one in made.changed if one in made.records}:
            self._feeds.note(OUTCOMES, date, 0)
        actions = [put_action(self._table, item) for item in made.items]
        actions += [put_action(self._table, *changed) for changed in made.latest()]
        self._requests.transact(actions, str(uuid.uuid4()), self._table)

    def _records(self, ids: Sequence[str]) -> list[Item]:
        found = self._requests.get_many(self._table, [(pk(one), RECORD) for one in ids], _RECORD_NAMES)
        now = self._requests.clock.now()
        return [item for item in found.values() if is_alive(item, now)]


class _Change:
    """What storing some outcomes means for their predictions."""

    def __init__(self, records: dict[str, Item], given: dict[str, Item], recorded_us: int) -> None:
        self.records = records
        self.items: list[Item] = []
        self.changed: dict[str, None] = {}
        self._given = given
        self._recorded_us = recorded_us
        self._latest = {one: given_of(item) for one, item in given.items()}

    def add(self, outcome: Outcome) -> StoredOutcome:
        """One more; what became of it."""
        one, text = outcome.prediction_id, value_text(outcome.value)
        latest = self._latest.setdefault(one, {})
        revision, known, at_us = latest.get(outcome.item, (0, "", 0))
        value_key = outcome_key(text)
        created = known != value_key
        if created:
            revision, at_us = revision + 1, microseconds(outcome.at, "at")
            latest[outcome.item] = revision, value_key, at_us
            self.changed[one] = None
            self.items.append(self._item(outcome, revision, text))
        return StoredOutcome(one, outcome.item, outcome.value, at_us / 1e6, revision, created, one in self.records)

    def latest(self) -> list[tuple[Item, Condition] | tuple[Item]]:
        """The items that say which are the latest, with what must still be so; and those of predictions that wait."""
        found: list[tuple[Item, Condition] | tuple[Item]] = []
        for one in self.changed:
            before = self._given.get(one)
            edition = 0 if before is None else int(before["edition"])
            unchanged = Condition("attribute_not_exists(#pk)")
            if before is not None:
                unchanged = Condition("#edition = :edition", {"edition": edition})
            item: Item = {
                "pk": pk(one), "sk": GIVEN, "edition": edition + 1, "given": packed_given(self._latest[one]),
            }  # fmt: skip
            record = self.records.get(one)
            if record is None:
                found.append(({"pk": WAITING, "sk": one, "recorded_at": self._recorded_us},))
            else:
                item |= {"day": partition(OUTCOMES, at_of(record["at"]), one), "at": record["at"]}
                item |= {EXPIRES_AT: record.get(EXPIRES_AT)}
            found.append((item, unchanged))
        return found

    def _item(self, outcome: Outcome, revision: int, text: str) -> Item:
        record = self.records.get(outcome.prediction_id, {})
        return {
            "pk": pk(outcome.prediction_id),
            "sk": outcome_sort(outcome.item, revision),
            "item": outcome.item,
            "revision": revision,
            "value": text,
            "given_at": microseconds(outcome.at, "at"),
            "recorded_at": self._recorded_us,
            "client": outcome.client,
            "key_id": outcome.key_id,
            EXPIRES_AT: record.get(EXPIRES_AT),
        }
