"""A real worker's connections in this process: uvicorn's loop and protocol, a stub model, a journal in memory."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.config import Config

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.scopes import parse_rate
from modelyard.auth.table import KeyTable
from modelyard.codec import CODECS
from modelyard.core.clock import SystemClock
from modelyard.core.errors import UnavailableError
from modelyard.core.settings import Settings
from modelyard.core.types import Servable
from modelyard.http.connection.protocol import bind
from modelyard.http.edge.certificate import TlsFiles
from modelyard.http.edge.tls import TlsContext
from modelyard.http.errors import render_error
from modelyard.http.shared import Shared
from modelyard.http.twin import Door
from modelyard.journal.durability.commit import commit_at_once
from modelyard.journal.frame import MARK, read_frames
from modelyard.journal.ids import PredictionIds
from modelyard.limits.clients import ClientLimits
from modelyard.limits.concurrency import ClientPermits
from modelyard.limits.failures import FailedAttempts
from modelyard.limits.quota import Quotas, SharedQuota
from modelyard.limits.remote import RemoteRates
from modelyard.predict import Predictor, Replays, WaitingPredictor
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable
from modelyard.storage.file.kept import KeptAnswers
from modelyard.testing import MemoryKeyStore, MemoryRateCounter, MemoryRemoteCounter, servable


class MemoryJournal:
    """Takes turns of frames; refuses them while `full`."""

    def __init__(self) -> None:
        self.turns: list[list[bytes]] = []
        self.full = False

    def append(self, parts: Sequence[bytes]) -> None:
        if self.full:
            raise UnavailableError("journal_unavailable", "The disk is full.", retry_after_s=1.0)
        self.turns.append(list(parts))

    @property
    def records(self) -> int:
        return sum(len(list(read_frames(io.BytesIO(b"".join([*turn, MARK]))))) for turn in self.turns)


MOST_WRONG_KEYS = 1_000_000
"""More than all tests of a worker send: who means the limiter uses up the address's share first."""


async def management(scope: Any, receive: Any, send: Any) -> None:
    """Stands for every route that is not a prediction: says which path it saw."""
    while (await receive()).get("more_body"):
        pass
    body = b'{"path":"%b"}' % scope["raw_path"]
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HttpWorker:
    """Starts on a free port in a thread; `key` may predict with every model, `stop` ends it."""

    def __init__(
        self,
        settings: Settings | None = None,
        models: Sequence[Servable] = (),
        rate: str = "100000/s",
        tls: TlsFiles | None = None,
        remote: bool = False,
    ) -> None:
        """`remote`: limits are counted by a RemoteCounter, `self.remote`."""
        self.remote = MemoryRemoteCounter(SystemClock()) if remote else None
        self.tls = None if tls is None else TlsContext(tls)
        self.client_tls = None if tls is None else ssl.create_default_context(cafile=str(tls.certificate))
        self.settings = settings or Settings()
        self.models = tuple(models) or (servable(),)
        self.store = MemoryKeyStore()
        self.issuer = KeyIssuer(self.store, SystemClock())
        self.keys: dict[str, str] = {}
        self.key = self.issuer.create("tester", rate=parse_rate(rate)).text.get_secret_value()
        self.journal = MemoryJournal()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: uvloop.run(self._main()), daemon=True)

    def start(self) -> HttpWorker:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()

    def on_loop(self, call: Callable[[], Any]) -> Any:
        """Calls on the loop's thread and gives what it returned."""

        async def run() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def refresh_keys(self) -> None:
        """The worker sees the key store as it is now."""
        table = KeyTable(self.store.snapshot())
        self.on_loop(lambda: setattr(self.predictor, "keys", table))

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        with (
            ThreadPoolExecutor(1) as runs,
            ThreadPoolExecutor(1) as decoder,
            tempfile.TemporaryDirectory() as folder,
        ):
            self.kept = KeptAnswers(Path(folder) / "kept", Path(folder), 0xABC, SystemClock())
            counts = SharedQuota.create(max_clients=64)
            self.clients = ClientLimits(Quotas(SharedQuota(counts), SystemClock()), ClientPermits(workers=1))
            self.attempts = FailedAttempts(SystemClock(), most=MOST_WRONG_KEYS, period_s=MOST_WRONG_KEYS)
            next_id = PredictionIds(0xABC).next
            endpoints = {m.model: Endpoint(m.model, m.model, ((m.version, 100),)) for m in self.models}
            table = RoutingTable(1, endpoints.values(), {(m.model, m.version): m for m in self.models})
            counter = MemoryRateCounter(SystemClock())
            predictor_over: Callable[..., Predictor] = Predictor
            if self.remote is not None:
                self.rates = RemoteRates(self.remote, counter, self.settings.limits, retry_every_s=0.01)
                predictor_over = partial(WaitingPredictor, rates=self.rates)
            self.predictor = predictor_over(
                settings=self.settings,
                loop=self.loop,
                executor=runs,
                decoder=decoder,
                counter=counter,
                journal=self.journal,
                commit=commit_at_once,
                next_id=next_id,
                render_error=render_error,
                codecs=CODECS,
                keys=KeyTable(self.store.snapshot()),
                table=table,
                replays=Replays(self.kept),
                clients=self.clients,
                attempts=self.attempts,
            )
            self.shared = Shared(self.predictor, self.settings.http, render_error, next_id)
            door = Door(self.shared, management, _at_once)
            config = Config(door, ws="none", lifespan="off", access_log=False, log_config=None)
            config.load()
            protocol = bind(self.shared)
            server = await self.loop.create_server(
                lambda: protocol(config, self.shared.state, {}, self.loop),
                sock=self.listener,
                ssl=None if self.tls is None else self.tls.context,
            )
            sweeper = self.loop.create_task(self._sweep())
            self.ready.set()
            await self.stopping.wait()
            sweeper.cancel()
            server.close()
            if self.remote is not None:
                await self.rates.close()
            for connection in list(self.shared.connections):
                connection.transport.abort()
            self.kept.close()
            self.clients.quotas.shared.close()
            os.close(counts)

    async def _sweep(self) -> None:
        import time

        while True:
            await asyncio.sleep(0.05)
            self.predictor.expire(time.perf_counter())
            for connection in list(self.shared.connections):
                connection.sweep(self.loop.time())


async def _at_once() -> None:
    return None
