"""The exact limit of several hosts, in a DynamoDB table: one conditional update for each client of an exchange.

What was seen of a client last is kept, so that the first update is mostly the right one; and a client that was seen
to be beyond its rate is refused without asking, as its arrival time never goes back: a flood costs no requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import UnavailableError
from modelyard.core.settings import DatabaseSettings
from modelyard.limits.ports import RateAsk, RateDecision
from modelyard.storage.aws.refusals import code_of
from modelyard.storage.dynamodb.client import Client
from modelyard.storage.dynamodb.limits.refusals import ContendedError, in_the_clear, refusal
from modelyard.storage.dynamodb.limits.service_time import ServiceTime, date_of
from modelyard.storage.dynamodb.limits.update import Seen, decided, planned
from modelyard.storage.dynamodb.refusals import failed_conditions, vendor_errors

PATIENCE_S = 1.0
"""How long connecting, and an answer, may take at most; who asks waits less (limits.remote, limits.breaker)."""
CLOSE_WITHIN_S = 1.0
THREADS = 8
"""Updates under way at once; the library's connections are ten."""
MOST_TRIES = 100
"""Each time another host was quicker, so the limit moves all the same; whoever asks ends it sooner."""
PAUSES_S = (0.01, 0.02)
"""Before a throttled update is made again (up to so long): it was surely not counted, and what comes meanwhile goes
with the next exchange, so that a client who is asked for too often is asked for less."""
MOST_SEEN = 10_000
"""Clients of which the last state is kept, at about 500 bytes."""
CLIENT = "client#"

_THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
)
_NOTHING = Seen()

Answer = tuple[Mapping[str, Any], float, float]
"""What was answered, and when it was asked for and here, by the monotonic clock."""


class DynamoCounter:
    """limits.ports.RemoteCounter over the table of a name. For one loop's thread."""

    def __init__(
        self,
        table: str,
        settings: DatabaseSettings,
        clock: Clock,
        *,
        time: ServiceTime | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`settings` say region, endpoint and bounds. UnavailableError("limits_unavailable") if no client of the
        service can be made."""
        self._table = table
        self._client = Client(settings)
        self._time = ServiceTime(clock) if time is None else time
        self._chance = chance
        self._seen: dict[str, Seen] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="limits")
        try:
            self._client.get()  # the library takes longer to import than a first request may wait
        except UnavailableError:
            raise in_the_clear() from None
        except vendor_errors() as error:
            raise refusal(error, table) from None

    async def take(self, asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
        """See RemoteCounter."""
        found: dict[int, RateDecision] = {}
        places: dict[str, list[int]] = {}
        for place, ask in enumerate(asks):
            places.setdefault(ask.client_id, []).append(place)

        async def decide(group: Sequence[int]) -> None:
            for place in group:
                found[place] = await self._decide(asks[place])

        try:
            if not self._time.is_known():
                await self._read(asks[0].client_id)
            await _all([partial(decide, group) for group in places.values()])
        except _failures() as error:
            raise refusal(error, self._table) from None
        return [found[place] for place in range(len(asks))]

    async def close(self) -> None:
        """See RemoteCounter. Requests that are under way end by their own bound."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await asyncio.to_thread(self._pool.shutdown)  # a parent forks workers only while it has no thread
        with suppress(Exception):
            self._client.close()

    async def _decide(self, ask: RateAsk) -> RateDecision:
        seen = self._seen.get(ask.client_id, _NOTHING)
        if ask.quota_correction and ask.quota_day not in seen.days:
            seen = await self._read(ask.client_id)
        for _ in range(MOST_TRIES):
            now_ns = self._time.now_ns()
            plan = planned(ask, seen, now_ns)
            if plan.update is None:
                return decided(ask, plan, seen, now_ns)
            wanted = plan.update.request() | {"ReturnValues": "ALL_NEW"}
            try:
                answer = await self._ask("update_item", ask, **wanted, ReturnValuesOnConditionCheckFailure="ALL_OLD")
            except _closed():
                if ask.quota_correction >= 0:
                    raise
                ask = msgspec.structs.replace(ask, quota_correction=0)  # what was given back is not given back twice
                seen = await self._read(ask.client_id)
                continue
            refused = "Error" in answer
            if not refused:
                return decided(ask, plan, self._keep(ask, answer.get("Attributes", {})), now_ns)
            # No item: it left a moment ago, or this service does not tell.
            seen = self._keep(ask, answer["Item"]) if "Item" in answer else await self._read(ask.client_id)
        raise ContendedError

    async def _read(self, client_id: str) -> Seen:
        """The item as the last write left it; and the service's time is heard."""
        ask = RateAsk(client_id, 0, 1.0, 1)
        answer = await self._ask("get_item", ask, ConsistentRead=True)
        return self._keep(ask, answer.get("Item", {}))

    def _keep(self, ask: RateAsk, attributes: Mapping[str, Any]) -> Seen:
        self._seen.pop(ask.client_id, None)
        self._seen[ask.client_id] = seen = Seen.of(attributes)
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return seen

    async def _ask(self, operation: str, ask: RateAsk, **wanted: Any) -> Mapping[str, Any]:
        request = {"TableName": self._table, "Key": {"pk": {"S": f"{CLIENT}{ask.client_id}"}}, **wanted}
        loop = asyncio.get_running_loop()
        for pause_s in (*PAUSES_S, None):
            try:
                call = self._call if ask.quota_correction >= 0 else self._once
                answer, asked_s, answered_s = await loop.run_in_executor(self._pool, call, operation, request)
            except vendor_errors() as error:
                if pause_s is None or code_of(error) not in _THROTTLED:
                    raise
                await asyncio.sleep(pause_s * self._chance())
                continue
            date_s = date_of(answer)
            if date_s is not None:
                self._time.heard(date_s, asked_s, answered_s)
            return answer
        raise AssertionError("the last try returns or raises")

    def _call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        """In a thread. A connection that turns out to be closed is no reason not to count: once more, on a new one.
        Should the first have been counted all the same, the client gets less for a moment, never more."""
        try:
            return self._once(operation, request)
        except _closed():
            return self._once(operation, request)

    def _once(self, operation: str, request: Mapping[str, Any]) -> Answer:
        """A condition that does not hold is an answer too, with `Error` in it."""
        from botocore.exceptions import ClientError

        asked_s = self._time.monotonic()
        answer: Mapping[str, Any]
        try:
            answer = getattr(self._client.get(), operation)(**request)
        except ClientError as error:
            if not failed_conditions(error):
                raise
            answer = error.response
        return answer, asked_s, self._time.monotonic()


def _closed() -> type[Exception]:
    from botocore.exceptions import ConnectionClosedError

    closed: type[Exception] = ConnectionClosedError
    return closed


def _failures() -> tuple[type[Exception], ...]:
    return *vendor_errors(), ContendedError


async def _all(calls: Sequence[Callable[[], Any]]) -> None:
    """Side by side; the first that fails ends the others."""
    if len(calls) == 1:
        await calls[0]()
        return
    tasks = [asyncio.ensure_future(call()) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
