"""Reading what is no record like the others: bytes kept raw, and records whose id was taken."""

from __future__ import annotations

import base64
from itertools import islice
from typing import Any

from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.ports import RecordFilter, RecordPage
from modelyard.storage import refusals
from modelyard.storage.dynamodb.attributes import Item
from modelyard.storage.dynamodb.records.feeds import ASIDE, Feeds, Stretch
from modelyard.storage.dynamodb.records.layout import (
    RECORD,
    VIEWED,
    at_of,
    body_keys,
    content_of,
    id_of,
    is_alive,
    pk,
    place,
)
from modelyard.storage.dynamodb.records.search import LAST_US
from modelyard.storage.dynamodb.requests import Condition, Span
from modelyard.storage.prediction_row import COLUMNS, READ_COLUMNS, microseconds, time_text, to_record


class DynamoQuarantineLog:
    """journal.ports.QuarantineLog over the table of predictions: a feed of its own holds both kinds."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first, of both kinds together."""
        behind = None if cursor is None else place(*decode_cursor(cursor))
        since = 0 if filter.since is None else max(0, microseconds(filter.since, "since"))
        until = LAST_US if filter.until is None else max(0, microseconds(filter.until, "until"))
        stretch = Stretch(ASIDE, since, until, behind, backwards=True)
        now = self._feeds.requests.clock.now()
        items = (item for item in self._feeds.read(stretch, where=_where(filter)) if is_alive(item, now))
        found = list(islice(items, limit + 1))
        following = None
        if len(found) > limit:
            last = found[limit - 1]["at"]
            following = encode_cursor(at_of(last), last.partition("#")[2])
        return RecordPage(tuple(map(_shown, found[:limit])), following)

    def raw(self, prediction_id: str) -> list[dict[str, Any]]:
        """All that was kept under this id."""
        requests, table = self._feeds.requests, self._feeds.table
        now = requests.clock.now()
        record = requests.get(table, (pk(prediction_id), RECORD))
        asides = list(requests.query_all(table, Span(pk(prediction_id), f"{ASIDE}#", f"{ASIDE}#~")))
        kept = [item for item in (record, *asides) if item is not None and is_alive(item, now)]
        rest = requests.get_many(table, [key for item in kept for key in body_keys(item)])
        found: list[dict[str, Any]] = []
        for item in kept:
            content = content_of(item, rest)
            if item["sk"] == RECORD:
                found += _kept_raw(item, content)
            else:
                found.append({**_head(item, item["reason"]), "record": _decoded(content[1:])})
        if not found:
            raise refusals.prediction_not_found(prediction_id)
        return found


def _where(wanted: RecordFilter) -> Condition | None:
    given = {name: getattr(wanted, name) for name in ("model", "version", "client", "endpoint")}
    values = {name: value for name, value in given.items() if value is not None}
    return Condition(" AND ".join(f"#{name} = :{name}" for name in values), values) if values else None


def _shown(item: Item) -> dict[str, Any]:
    named = {name: item[name] for name in VIEWED}
    time = time_text(at_of(item["at"]))
    return {"id": id_of(item["pk"]), "time": time, "reason": item["reason"], "raw_bytes": item["raw_bytes"], **named}


def _head(item: Item, reason: str) -> dict[str, Any]:
    return {"reason": reason, "payload_sha256": item["payload_sha256"]}


def _kept_raw(item: Item, row: list[Any]) -> list[dict[str, Any]]:
    raw = row[COLUMNS.index("raw")]
    if raw is None:
        return []
    return [{**_head(item, item.get("flag", "")), "raw": base64.b64encode(raw).decode()}]


def _decoded(row: list[Any]) -> dict[str, Any]:
    raw = row[COLUMNS.index("raw")]
    shown = {} if raw is None else {"raw": base64.b64encode(raw).decode()}
    return to_record(row[: len(READ_COLUMNS)]) | shown
