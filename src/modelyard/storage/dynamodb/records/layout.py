"""How a prediction lies in the table.

All of a prediction is one partition, `p#<id>`:

    record            the row, compressed; what filters look at in attributes of its own
    body#0001 …       the rest of a row that is longer than an item
    given             which items have an outcome, of which revision
    outcome#…         one revision of an outcome
    flag              what the list of quarantined records shows of a record that nobody understood
    aside#<payload>   a record whose id another payload holds

Beside it: `s#<subject>` points to what there is about a subject, `waiting` to predictions whose outcomes came first,
`days#<feed>` names the days of a feed, `spool` how far a spool file is stored, `leaving` what was certified to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard.core.settings import RetentionSettings
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Hold
from modelyard.storage.dynamodb.attributes import Item, Key, ordered, packed, parts_of, unpacked
from modelyard.storage.dynamodb.records.feeds import ASIDE, RECORDS, partition
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.storage.prediction_row import AT, COLUMNS, to_row

RECORD, GIVEN, FLAG = "record", "given", "flag"
WAITING, SPOOL, LEAVING = "waiting", "spool", "leaving"
ID_TAKEN = "id_taken"
"""Why a record is kept aside: another payload holds its id."""
DAY_S = 86_400
LAST_RESORT_S = 7 * DAY_S
"""So long after the end of its days a record expires by itself. The sweep, which certifies what it deletes, comes
first, unless nothing has run for a week."""

FILTERED = ("client", "endpoint", "model", "version", "status", "rows", "subject", "flag")
_PLACES = {name: COLUMNS.index(name) for name in (*FILTERED, "payload_sha256", "raw", "id")}
VIEWED = ("client", "endpoint", "model", "version", "status", "payload_sha256")
"""What the list of quarantined records shows, beside id, time, reason and size."""


def pk(prediction_id: str) -> str:
    """The partition of a prediction."""
    return f"p#{prediction_id}"


def id_of(partition_key: str) -> str:
    """The prediction of a partition."""
    return partition_key[2:]


def about(subject: str) -> str:
    """The partition of what there is about a subject."""
    return f"s#{subject}"


def place(at_us: int, name: str) -> str:
    """Where something stands in time; `name` tells apart what happened in one microsecond."""
    return f"{ordered(at_us)}#{name}"


def at_of(where: str) -> int:
    """The time of a place, UNIX microseconds."""
    return int(where.partition("#")[0])


class Expiry(msgspec.Struct, frozen=True):
    """When records leave by themselves, if nobody sweeps. A hold that matches keeps them from it."""

    days: int
    aside_days: int

    @classmethod
    def of(cls, settings: RetentionSettings) -> Expiry:
        """By the settings."""
        aside = settings.quarantine_days
        return cls(settings.days, settings.days if aside is None else aside)

    def record(self, row: Sequence[Any], holds: Sequence[Hold]) -> int | None:
        """UNIX seconds for a record, None for never."""
        shown = {name: row[number] for name, number in _PLACES.items()}
        return self._end(row[AT], self.days, any(is_held(hold, shown, row[AT]) for hold in holds))

    def aside(self, row: Sequence[Any], holds: Sequence[Hold]) -> int | None:
        """The same for what is set aside; a hold for one subject keeps it too."""
        shown = {name: row[number] for name, number in _PLACES.items() if name != "subject"}
        return self._end(row[AT], self.aside_days, any(is_held(hold, shown, row[AT]) for hold in holds))

    def _end(self, at_us: int, days: int, held: bool) -> int | None:
        return None if held or not days else at_us // 1_000_000 + days * DAY_S + LAST_RESORT_S


def is_held(hold: Hold, shown: Mapping[str, Any], at_us: int) -> bool:
    """Whether a hold keeps this. What is set aside has no subject to be looked at: a hold for one subject keeps all of
    it that the hold's other fields match."""
    named = ((name, getattr(hold, name)) for name in ("model", "endpoint", "client", "subject") if name in shown)
    return (
        all(value is None or shown[name] == value for name, value in named)
        and (hold.since is None or at_us >= hold.since * 1e6)
        and (hold.until is None or at_us < hold.until * 1e6)
    )


def record_items(record: PredictionRecord, row: Sequence[Any], expires_at: int | None) -> tuple[list[Item], Item]:
    """What must be there before the record, and the record."""
    key, at_us = pk(row[0]), row[AT]
    body = packed(msgspec.msgpack.encode(row))
    first, *rest = parts_of(body)
    filtered = {name: row[_PLACES[name]] for name in FILTERED if row[_PLACES[name]] != ""}
    common = {EXPIRES_AT: expires_at}
    before: list[Item] = [
        {"pk": key, "sk": _body(number), "body": part, **common} for number, part in enumerate(rest, 1)
    ]
    where = place(at_us, row[0])
    if record.header.subject:
        before.append({"pk": about(record.header.subject), "sk": f"r#{where}", **common})
    if record.flag not in ("", "request_refused"):
        before.append({**_quarantined(row, key, record.flag), "sk": FLAG, **common})
    item = {
        "pk": key, "sk": RECORD, "day": partition(RECORDS, at_us, row[0]), "at": where, "body": first,
        "parts": len(rest), "payload_sha256": record.payload_sha256, **filtered, **common,
    }  # fmt: skip
    return before, item


def aside_items(record: PredictionRecord, expires_at: int | None) -> list[Item]:
    """A record whose id is taken, kept aside; the last one is it, the others before."""
    row = to_row(record)
    first, *rest = parts_of(packed(msgspec.msgpack.encode((record.header, *row))))
    key, digest = pk(row[0]), record.payload_sha256
    common = {EXPIRES_AT: expires_at}
    items: list[Item] = [
        {"pk": key, "sk": f"aside-{_body(number)}#{digest}", "body": part, **common}
        for number, part in enumerate(rest, 1)
    ]
    if record.header.subject:
        items.append({"pk": about(record.header.subject), "sk": f"q#{row[0]}#{digest}", **common})
    main = {**_quarantined(row, key, ID_TAKEN), "sk": f"{ASIDE}#{digest}", "body": first, "parts": len(rest)}
    return [*items, {**main, "subject": record.header.subject or None, **common}]


def _quarantined(row: Sequence[Any], key: str, reason: str) -> Item:
    shown = {name: row[COLUMNS.index(name)] for name in VIEWED}
    where = place(row[AT], f"{row[0]}/{row[_PLACES['payload_sha256']]}")
    raw_bytes = len(row[_PLACES["raw"]] or b"")
    return {
        "pk": key, "day": partition(ASIDE, row[AT], row[0]), "at": where, "reason": reason, "raw_bytes": raw_bytes,
        **shown,
    }  # fmt: skip


def body_keys(item: Item) -> list[Key]:
    """The keys of the rest of a record's, or of a set aside record's, body."""
    if item["sk"] == RECORD:
        return [(item["pk"], _body(number)) for number in range(1, item["parts"] + 1)]
    digest = item["sk"].partition("#")[2]
    return [(item["pk"], f"aside-{_body(number)}#{digest}") for number in range(1, item["parts"] + 1)]


def content_of(item: Item, rest: Mapping[Key, Item]) -> list[Any]:
    """The row of a record, or header and row of a set aside one; `rest` has the items of `body_keys`."""
    parts = [item["body"], *(rest[key]["body"] for key in body_keys(item))]
    row: list[Any] = msgspec.msgpack.decode(unpacked(parts))
    return row


def keys_of_record(item: Item) -> list[Key]:
    """All that goes with a record, but its outcomes."""
    keys = [(item["pk"], RECORD), *body_keys(item)]
    if subject := item.get("subject"):
        keys.append((about(subject), f"r#{item['at']}"))
    if item.get("flag", "") not in ("", "request_refused"):
        keys.append((item["pk"], FLAG))
    return keys


def keys_of_aside(item: Item) -> list[Key]:
    """All that goes with a record that was set aside."""
    keys = [(item["pk"], item["sk"]), *body_keys(item)]
    if subject := item.get("subject"):
        keys.append((about(subject), f"q#{id_of(item['pk'])}#{item['payload_sha256']}"))
    return keys


def outcome_sort(item: int, revision: int) -> str:
    """The sort key of one revision of an outcome."""
    return f"outcome#{item:010d}#{revision:010d}"


Given = dict[int, tuple[int, str, int]]
"""Revision, value's key and time (UNIX microseconds) of the latest outcome, by item."""


def given_of(item: Item | None) -> Given:
    """What is given of a prediction, by its item `given`."""
    return {} if item is None else msgspec.msgpack.decode(unpacked([item["given"]]), type=Given)


def packed_given(given: Given) -> bytes:
    """The same on its way back."""
    return packed(msgspec.msgpack.encode(given))


def keys_of_outcomes(prediction_id: str, given: Given) -> list[Key]:
    """All revisions of all items."""
    key = pk(prediction_id)
    return [(key, outcome_sort(n, r)) for n, (last, _key, _at) in given.items() for r in range(1, last + 1)]


def is_alive(item: Mapping[str, Any], now: float) -> bool:
    """Whether a reader may see it: what has expired may be there for days."""
    end = item.get(EXPIRES_AT)
    return end is None or end > now


def _body(number: int) -> str:
    return f"body#{number:04d}"
