"""The requests that we make of the tables, each tried within bounds, each refusal in our words."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from modelyard.core.clock import Clock
from modelyard.storage.dynamodb.attributes import Item, Key, decode, encode, encode_key, is_possible
from modelyard.storage.dynamodb.client import Client
from modelyard.storage.dynamodb.refusals import (
    ConditionFailedError,
    TookTooLongError,
    failed_conditions,
    is_transient,
    refusal,
    vendor_errors,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.025, 1.0
KEYS_PER_GET, ITEMS_PER_WRITE = 100, 25
"""The service's bounds of BatchGetItem and BatchWriteItem."""
BYTES_PER_WRITE = 12 * 1024 * 1024
"""The service takes 16 MB with all names and the JSON around."""
WRITERS = 8
"""BatchWriteItems at once, of one batch of the drain."""

_ACTIONS = {
    "get_item": "dynamodb:GetItem",
    "batch_get_item": "dynamodb:BatchGetItem",
    "query": "dynamodb:Query",
    "put_item": "dynamodb:PutItem",
    "update_item": "dynamodb:UpdateItem",
    "delete_item": "dynamodb:DeleteItem",
    "batch_write_item": "dynamodb:BatchWriteItem",
    "transact_write_items": "dynamodb:PutItem",
    "describe_table": "dynamodb:DescribeTable",
}
"""Each request that is ever made, and the permission that it needs. Scan is none of them."""


class Condition(msgspec.Struct, frozen=True):
    """What must hold: an expression, whose `#name` is the attribute `name`, and its `:values`."""

    expression: str
    values: Mapping[str, Any] = {}


class Span(msgspec.Struct, frozen=True):
    """Part of a partition: `partition` and the sort keys from `low` to `high`, both included; in `index` (its name and
    both keys' names) or in the table itself."""

    partition: str
    low: str = "\x00"
    high: str = "\U0010ffff"
    index: tuple[str, str, str] | None = None
    backwards: bool = False


class Page(msgspec.Struct, frozen=True):
    """What one Query gave. `behind` is where the next one starts, None at the end."""

    items: list[Item]
    behind: dict[str, Any] | None
    count: int


class Requests:
    """Requests to one region's tables. Safe for threads.

    Each is tried again while it fails in a way that may pass; none begins later than `timeout_s` after the first.
    Pauses are those of "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), the full jitter: `chance` gives
    0 to 1. UnavailableError("store_unavailable"), InternalError("internal"), ConditionFailedError.
    """

    def __init__(
        self,
        client: Client,
        timeout_s: float,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.timeout_s = timeout_s
        self.clock = clock
        self._chance = chance
        self._pause = pause

    def describe(self, table: str) -> Mapping[str, Any]:
        """What the table is like."""
        found: Mapping[str, Any] = self._call("describe_table", table, TableName=table)["Table"]
        return found

    def get(self, table: str, key: Key) -> Item | None:
        """One item as the last write left it."""
        return self.get_at(table, key)[0]

    def get_at(self, table: str, key: Key) -> tuple[Item | None, float]:
        """The same, and the service's time (UNIX seconds, whole ones), so that hosts' clocks need not agree."""
        if not is_possible(key):
            return None, self.clock.now()
        answer = self._call("get_item", table, TableName=table, Key=encode_key(key), ConsistentRead=True)
        return decode(answer["Item"]) if "Item" in answer else None, self._time_of(answer)

    def get_many(self, table: str, keys: Iterable[Key], names: Sequence[str] = ()) -> dict[Key, Item]:
        """Those of the items that are there, as the last writes left them; with `names` only these attributes of
        them."""
        wanted = [key for key in dict.fromkeys(keys) if is_possible(key)]
        found: dict[Key, Item] = {}
        for start in range(0, len(wanted), KEYS_PER_GET):
            left: dict[str, Any] = {"Keys": [encode_key(key) for key in wanted[start : start + KEYS_PER_GET]]}
            left["ConsistentRead"] = True
            if names:
                left |= {"ProjectionExpression": ", ".join(f"#{n}" for n in ("pk", "sk", *names))}
                left["ExpressionAttributeNames"] = {f"#{name}": name for name in ("pk", "sk", *names)}
            for answer in self._until_done("batch_get_item", table, left, "UnprocessedKeys"):
                for item in answer.get("Responses", {}).get(table, ()):
                    plain = decode(item)
                    found[plain["pk"], plain["sk"]] = plain
        return found

    def query(
        self,
        table: str,
        span: Span,
        *,
        where: Condition | None = None,
        limit: int | None = None,
        behind: dict[str, Any] | None = None,
        only: Sequence[str] = (),
        count_only: bool = False,
    ) -> Page:
        """One page of a partition, in order; strongly consistent in the table itself, never in an index. `limit` counts
        what is read, `where` takes out of it afterwards; `only` these attributes come."""
        names = span.index[1:] if span.index is not None else ("pk", "sk")
        condition = Condition(
            f"#{names[0]} = :partition AND #{names[1]} BETWEEN :low AND :high",
            {"partition": span.partition, "low": span.low, "high": span.high},
        )
        request: dict[str, Any] = {"TableName": table, "ScanIndexForward": not span.backwards}
        request["KeyConditionExpression"] = condition.expression
        request |= _placeholders((*names, *only), condition, *([where] if where is not None else []))
        if only:
            request["ProjectionExpression"] = ", ".join(f"#{name}" for name in only)
        if where is not None:
            request["FilterExpression"] = where.expression
        if span.index is None:
            request["ConsistentRead"] = True
        else:
            request["IndexName"] = span.index[0]
        optional = {"Limit": limit, "ExclusiveStartKey": behind, "Select": "COUNT" if count_only else None}
        request |= {name: value for name, value in optional.items() if value is not None}
        answer = self._call("query", table, **request)
        items = [decode(item) for item in answer.get("Items", ())]
        return Page(items, answer.get("LastEvaluatedKey"), int(answer.get("Count", 0)))

    def query_all(
        self, table: str, span: Span, *, where: Condition | None = None, limit: int | None = None
    ) -> Iterator[Item]:
        """All items of a span, page by page as they are taken; `limit` is the size of a page."""
        if not is_possible((span.partition, span.low)):
            return
        behind: dict[str, Any] | None = None
        while True:
            page = self.query(table, span, where=where, limit=limit, behind=behind)
            yield from page.items
            behind = page.behind
            if behind is None:
                return

    def count(self, table: str, span: Span, where: Condition | None = None) -> int:
        """How many items of a span there are."""
        total, behind = 0, None
        while True:
            page = self.query(table, span, where=where, behind=behind, count_only=True)
            total, behind = total + page.count, page.behind
            if behind is None:
                return total

    def put(self, table: str, item: Item, condition: Condition | None = None) -> None:
        """Writes an item, if the condition holds of the one that is there."""
        self._call("put_item", table, TableName=table, Item=encode(item), **_expressions(condition))

    def update(self, table: str, key: Key, change: str, condition: Condition | None, **values: Any) -> None:
        """Changes an item by an update expression, if the condition holds of it."""
        changed = Condition(change, values)
        both = (changed,) if condition is None else (changed, condition)
        request = {"UpdateExpression": change} | _placeholders((), *both)
        if condition is not None:
            request["ConditionExpression"] = condition.expression
        self._call("update_item", table, TableName=table, Key=encode_key(key), **request)

    def delete(self, table: str, key: Key, condition: Condition | None = None) -> None:
        """Removes an item, if the condition holds of it."""
        self._call("delete_item", table, TableName=table, Key=encode_key(key), **_expressions(condition))

    def write_many(self, table: str, puts: Iterable[Item] = (), deletes: Iterable[Key] = ()) -> None:
        """Puts and deletes, in no order and not together: whoever needs one before the other calls twice. What the
        service leaves undone is sent again."""
        batches = list(_batches([*map(_put, puts), *map(_delete, deletes)]))
        if len(batches) < 2:
            for batch in batches:
                self._write(table, batch)
            return
        with ThreadPoolExecutor(min(len(batches), WRITERS)) as pool:
            for written in [pool.submit(self._write, table, batch) for batch in batches]:
                written.result()

    def _write(self, table: str, batch: list[dict[str, Any]]) -> None:
        for _answer in self._until_done("batch_write_item", table, batch, "UnprocessedItems"):
            pass

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str, table: str) -> None:
        """All of them or none. With the same `token` a second call does nothing for ten minutes: an answer that was
        lost does not make its request a conflict with itself. `table` is the one that a refusal names."""
        self._call("transact_write_items", table, TransactItems=list(actions), ClientRequestToken=token)

    def _until_done(self, operation: str, table: str, left: Any, rest: str) -> Iterator[Mapping[str, Any]]:
        deadline_s = self.clock.monotonic() + self.timeout_s
        for attempt in range(1_000_000):
            answer = self._call(operation, table, RequestItems={table: left})
            yield answer
            left = answer.get(rest, {}).get(table)
            if not left:
                return
            if self.clock.monotonic() >= deadline_s:
                raise refusal(TookTooLongError(), table, _ACTIONS[operation])
            self.pause(attempt)

    def _call(self, operation: str, table: str, **request: Any) -> Any:
        deadline_s = self.clock.monotonic() + self.timeout_s
        for attempt in range(1_000_000):
            try:
                return getattr(self.client.get(), operation)(**request)
            except vendor_errors() as error:
                if places := failed_conditions(error):
                    raise ConditionFailedError(places) from None
                if not is_transient(error) or self.clock.monotonic() >= deadline_s:
                    raise refusal(error, table, _ACTIONS[operation]) from None
            self.pause(attempt)
        raise AssertionError("the time is over before that many attempts")

    def pause(self, attempt: int) -> None:
        """Rests before the next attempt (the first is number 0)."""
        self._pause(self._chance() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 16)))

    def _time_of(self, answer: Mapping[str, Any]) -> float:
        said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return self.clock.now() if said is None else parsedate_to_datetime(said).timestamp()


def put_action(table: str, item: Item, condition: Condition | None = None) -> dict[str, Any]:
    """A put as part of a transaction."""
    return {"Put": {"TableName": table, "Item": encode(item), **_expressions(condition)}}


def update_action(table: str, key: Key, change: str, **values: Any) -> dict[str, Any]:
    """A change of an item by an update expression as part of a transaction."""
    expressions = {"UpdateExpression": change, **_placeholders((), Condition(change, values))}
    return {"Update": {"TableName": table, "Key": encode_key(key), **expressions}}


def delete_action(table: str, key: Key) -> dict[str, Any]:
    """A deletion as part of a transaction."""
    return {"Delete": {"TableName": table, "Key": encode_key(key)}}


def check_action(table: str, key: Key, condition: Condition) -> dict[str, Any]:
    """A condition on an item that the transaction leaves as it is."""
    return {"ConditionCheck": {"TableName": table, "Key": encode_key(key), **_expressions(condition)}}


def _put(item: Item) -> dict[str, Any]:
    return {"PutRequest": {"Item": encode(item)}}


def _delete(key: Key) -> dict[str, Any]:
    return {"DeleteRequest": {"Key": encode_key(key)}}


def _batches(requests: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for request in requests:
        own = _size(request)
        if batch and (len(batch) == ITEMS_PER_WRITE or size + own > BYTES_PER_WRITE):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += own
    if batch:
        yield batch


def _size(request: Mapping[str, Any]) -> int:
    """About how long a request is: bytes travel as base64."""
    item = request.get("PutRequest", {}).get("Item", {})
    return sum(len(name) + 16 + len(next(iter(value.values()))) * 4 // 3 for name, value in item.items())


def _expressions(condition: Condition | None) -> dict[str, Any]:
    if condition is None:
        return {}
    return {"ConditionExpression": condition.expression, **_placeholders((), condition)}


def _placeholders(names: Iterable[str], *conditions: Condition) -> dict[str, Any]:
    """Names and values of expressions: `#name` stands for the attribute `name`, since many are reserved words."""
    used = {f"#{name}": name for name in names}
    values: dict[str, Any] = {}
    for condition in conditions:
        words = condition.expression.replace("(", " ").replace(")", " ").replace(",", " ").split()
        used |= {word: word[1:] for word in words if word.startswith("#")}
        values |= {f":{name}": encode({"v": value})["v"] for name, value in condition.values.items()}
    found: dict[str, Any] = {"ExpressionAttributeNames": used} if used else {}
    return found | ({"ExpressionAttributeValues": values} if values else {})
