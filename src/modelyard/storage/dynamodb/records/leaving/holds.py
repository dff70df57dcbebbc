"""Legal holds. They lie with the metadata; what they match of the log must not expire by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InternalError
from modelyard.retention.ports import Hold
from modelyard.storage import refusals
from modelyard.storage.dynamodb.attributes import Item, Key
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.dynamodb.records.feeds import ASIDE, RECORDS, Feeds, Stretch
from modelyard.storage.dynamodb.records.layout import (
    FILTERED,
    GIVEN,
    ID_TAKEN,
    Expiry,
    at_of,
    given_of,
    id_of,
    is_held,
    keys_of_aside,
    keys_of_outcomes,
    keys_of_record,
)
from modelyard.storage.dynamodb.refusals import ConditionFailedError
from modelyard.storage.dynamodb.requests import Condition
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.storage.prediction_row import microseconds, time_text

HOLDS = "hold"
_NAMES = ("model", "endpoint", "client", "subject")


class DynamoHoldStore:
    """retention.ports.HoldStore over both tables."""

    def __init__(self, metadata: Metadata, trail: AuditTrail, feeds: Feeds, expiry: Expiry) -> None:
        self._metadata = metadata
        self._trail = trail
        self._feeds = feeds
        self._expiry = expiry

    def add(self, hold: Hold) -> None:
        """From now on this is held. What it matches is kept from expiring: at once, and again by each sweep."""

        def add(t: Transaction) -> None:
            if t.get(HOLDS, hold.id) is not None:
                raise InternalError("internal", "The hold is there already.")
            t.put(HOLDS, hold.id, document=msgspec.json.encode(hold).decode())
            self._trail.record(t, AuditAction.HOLD_CREATE, f"hold:{hold.id}", None, _shown(hold))

        self._metadata.change(add)
        since = 0 if hold.since is None else max(0, microseconds(hold.since, "since"))
        until = 2**63 - 1 if hold.until is None else max(0, microseconds(hold.until, "until"))
        for feed in (RECORDS, ASIDE):
            if self._expiry.days if feed == RECORDS else self._expiry.aside_days:
                stretch = Stretch(feed, since, until)
                keep(self._feeds, (item for item in self._feeds.read(stretch) if held_by([hold], item)))

    def holds(self) -> Sequence[Hold]:
        """Those in force, oldest first."""
        return read_holds(self._metadata)

    def release(self, hold_id: str) -> Hold:
        """Ends one."""

        def release(t: Transaction) -> Hold:
            found = t.get(HOLDS, hold_id)
            if found is None:
                raise refusals.hold_not_found(hold_id)
            hold = msgspec.json.decode(found["document"], type=Hold)
            t.delete(HOLDS, hold_id)
            self._trail.record(t, AuditAction.HOLD_RELEASE, f"hold:{hold_id}", _shown(hold), None)
            return hold

        return self._metadata.change(release)


def read_holds(metadata: Metadata) -> list[Hold]:
    """All holds in force, oldest first."""
    holds = [msgspec.json.decode(item["document"], type=Hold) for item in metadata.all_of(HOLDS)]
    return sorted(holds, key=lambda hold: (hold.at, hold.id))


def held_by(holds: Sequence[Hold], item: Item) -> bool:
    """Whether one of the holds keeps a record, or what was set aside."""
    aside = item.get("reason") == ID_TAKEN
    shown = {name: item.get(name, "") for name in FILTERED if not (aside and name == "subject")}
    return any(is_held(hold, shown, at_of(item["at"])) for hold in holds)


def keep(feeds: Feeds, items: Iterable[Item]) -> None:
    """Keeps these from expiring, with all that goes with them."""
    for item in items:
        if EXPIRES_AT not in item or item["sk"] == "flag":
            continue
        keys = keys_of_aside(item) if item.get("reason") == ID_TAKEN else _all_keys(feeds, item)
        for key in keys:
            with suppress(ConditionFailedError):
                there = Condition("attribute_exists(#pk)")
                feeds.requests.update(feeds.table, key, f"REMOVE #{EXPIRES_AT}", there)


def _all_keys(feeds: Feeds, record: Item) -> list[Key]:
    given = (record["pk"], GIVEN)
    found = feeds.requests.get(feeds.table, given)
    return [*keys_of_record(record), given, *keys_of_outcomes(id_of(record["pk"]), given_of(found))]


def _shown(hold: Hold) -> dict[str, Any]:
    times = {
        name: None if (at := getattr(hold, name)) is None else time_text(microseconds(at, name))
        for name in ("since", "until")
    }
    named = {name: getattr(hold, name) for name in _NAMES}
    return {"reason": hold.reason, **{name: value for name, value in (named | times).items() if value is not None}}
