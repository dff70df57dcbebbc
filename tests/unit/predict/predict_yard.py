"""A predictor on a running loop, without HTTP; its callers and its journal are lists."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import ClientBounds
from modelyard.auth.scopes import parse_rate
from modelyard.auth.table import KeyTable
from modelyard.codec import CODECS
from modelyard.core.call import Answer, RequestHead
from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings
from modelyard.core.types import Surface
from modelyard.http.errors import render_error
from modelyard.journal.durability.commit import commit_at_once
from modelyard.journal.ids import PredictionIds
from modelyard.limits.clients import ClientLimits
from modelyard.limits.concurrency import ClientPermits
from modelyard.limits.quota import Quotas, SharedQuota
from modelyard.predict import Commit, Predictor
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable
from modelyard.testing import MemoryKeyStore, MemoryRateCounter, servable

ROW = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'


class StubCall:
    """One request; `answers` is what it was told. `breaks` makes its connection fail under the answer."""

    def __init__(self, key: bytes, body: bytes = ROW) -> None:
        self.head = RequestHead(Surface.OIP, "tree", key=key)
        self.body = body
        self.gone = False
        self.address = "192.0.2.7"
        self.breaks = False
        self.answers: list[Answer] = []

    def answer(self, answer: Answer) -> None:
        """Takes the answer."""
        if self.breaks:
            raise RuntimeError("the handler is closed")
        self.answers.append(answer)

    @property
    def code(self) -> str:
        """ "" for a success, else the error's code."""
        (answer,) = self.answers
        return "" if answer.status == 200 else str(json.loads(answer.body)["code"])


class StubJournal:
    """Notes turns; raises `error` if set."""

    def __init__(self) -> None:
        self.turns: list[Sequence[bytes]] = []
        self.error: Exception | None = None

    def append(self, parts: Sequence[bytes]) -> None:
        """One write."""
        if self.error is not None:
            raise self.error
        self.turns.append(list(parts))

    @property
    def records(self) -> int:
        """Frames written."""
        return sum(len(turn) for turn in self.turns)


class Yard:
    """A predictor on a running loop, without HTTP."""

    def __init__(
        self, runs: ThreadPoolExecutor, commit: Commit, predictor_over: Callable[..., Predictor] = Predictor
    ) -> None:
        store = MemoryKeyStore()
        issuer = KeyIssuer(store, SystemClock())
        self.key = issuer.create("tester").text.get_secret_value().encode()
        self.few = issuer.create("two-an-hour", rate=parse_rate("2/h")).text.get_secret_value().encode()
        bounds = ClientBounds(quota_per_day=3)
        self.daily = issuer.create("three-a-day", bounds=bounds).text.get_secret_value().encode()
        self.journal = StubJournal()
        self._counts = SharedQuota.create(max_clients=16)
        self.clients = ClientLimits(Quotas(SharedQuota(self._counts), SystemClock()), ClientPermits(1))
        self.predictor = predictor_over(
            settings=Settings(),
            loop=asyncio.get_running_loop(),
            executor=runs,
            decoder=runs,
            counter=MemoryRateCounter(SystemClock()),
            journal=self.journal,
            commit=commit,
            next_id=PredictionIds(1).next,
            render_error=render_error,
            codecs=CODECS,
            clients=self.clients,
            keys=KeyTable(store.snapshot()),
            table=RoutingTable(1, [Endpoint("tree", "tree", (("1", 100),))], {("tree", "1"): servable()}),
        )

    def ask(self, count: int = 1, body: bytes = ROW, key: bytes = b"") -> list[StubCall]:
        """So many requests in this turn."""
        calls = [StubCall(key or self.key, body) for _ in range(count)]
        for call in calls:
            self.predictor.predict(call)
        return calls

    def close(self) -> None:
        """Nothing is left."""
        self.clients.quotas.shared.close()
        os.close(self._counts)

    def check_quiet(self) -> None:
        """Nothing is held."""
        assert self.predictor.in_flight == set()
        assert self.predictor._permits.taken == 0


def on_loop(test: Callable[[Yard], Coroutine[Any, Any, None]], commit: Commit = commit_at_once) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as runs:
            yard = Yard(runs, commit)
            await asyncio.wait_for(test(yard), 10)
            yard.close()

    asyncio.run(main())


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
