"""This server's worker with stages taken out, to see what each one costs: `python bench/staged.py DATA PORT [STAGE…]`.

Stages: `keys` (every caller is the same one), `limits`, `journal`, `batching` (one by one). The product has no such
switches; here the parts are put together without them, in one process, with no drain.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.config import Config

from modelyard.app.services import open_services
from modelyard.auth.table import KeyTable, Principal
from modelyard.codec import CODECS
from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings, load_settings
from modelyard.http.connection.protocol import bind
from modelyard.http.errors import render_error
from modelyard.http.shared import Shared
from modelyard.journal.durability.commit import commit_at_once
from modelyard.journal.ids import PredictionIds
from modelyard.journal.spool import SpoolWriter
from modelyard.limits.gcra import SharedGcra
from modelyard.limits.ports import RateDecision
from modelyard.models.catalog import Catalog
from modelyard.predict import Predictor
from modelyard.routing.table import RoutingTable


class NoKeys:
    """Everybody is the same caller."""

    version = 0

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def authenticate(self, presented: bytes | None, now: float) -> Principal:
        return self._principal


class NoLimits:
    """Everything passes."""

    def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> RateDecision:
        return RateDecision(count, burst, burst, 0.0, 0.0)


class NoJournal:
    """Nothing is kept."""

    def append(self, parts: Sequence[bytes]) -> None:
        """Nothing."""


async def main(data: Path, port: int, without: set[str]) -> None:
    protocol = await worker_of(data, without, os.environ["BENCH_KEY"])
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    await server.serve_forever()


async def worker_of(data: Path, without: set[str], key: str) -> Callable[[], Any]:
    """What makes the protocol of a new connection to such a worker."""
    settings = settings_for(data, without)
    clock, loop = SystemClock(), asyncio.get_running_loop()
    services = open_services(settings)
    catalog = Catalog(services.artifacts, services.runtimes, settings, clock, 1)
    catalog.refresh(services.registry.versions())
    keys: Any = KeyTable(services.key_store.snapshot())
    if "keys" in without:
        keys = NoKeys(keys.authenticate(key.encode(), 0.0))
    limits: Any = NoLimits() if "limits" in without else SharedGcra.attach(SharedGcra.create(16), clock)
    spool = SpoolWriter(data / "staged-spool", 1, settings.journal, clock)
    next_id = PredictionIds(1).next
    predictor = Predictor(
        settings=settings,
        loop=loop,
        executor=ThreadPoolExecutor(1),
        decoder=ThreadPoolExecutor(1),
        counter=limits,
        journal=NoJournal() if "journal" in without else spool,
        commit=commit_at_once,
        next_id=next_id,
        render_error=render_error,
        codecs=CODECS,
        keys=keys,
        table=RoutingTable(1, services.endpoints.endpoints(), catalog.servables()),
    )
    shared = Shared(predictor, settings.http, render_error, next_id)
    config = Config(refuse, ws="none", lifespan="off", access_log=False, log_config=None)
    config.load()
    protocol = bind(shared)
    return lambda: protocol(config, shared.state, {}, loop)


def settings_for(data: Path, without: set[str]) -> Settings:
    """Everything on, but a spool that no measurement fills."""
    chosen = load_settings(None, data=data, **{"journal.max_spool_bytes": 1 << 36})
    if "batching" in without:
        chosen = chosen.model_copy(update={"batching": chosen.batching.model_copy(update={"max_rows": 1})})
    return chosen


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """No other route is there."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])))
