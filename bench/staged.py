"""This server's worker with stages taken out, to see what each one costs: `python bench/staged.py MODEL PORT [STAGE…]`.

Stages: `keys` (every caller is the same one), `limits`, `journal`, `batching` (one by one). The product has no such
switches; here the parts are put together without them, in one process, with no drain.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.config import Config

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.scopes import parse_rate
from modelyard.auth.table import KeyTable, Principal
from modelyard.codec import CODECS
from modelyard.core.clock import SystemClock
from modelyard.core.settings import BatchingSettings, Settings
from modelyard.core.types import Servable
from modelyard.http.connection.protocol import bind
from modelyard.http.errors import render_error
from modelyard.http.shared import Shared
from modelyard.journal.commit import commit_at_once
from modelyard.journal.ids import PredictionIds
from modelyard.journal.spool import SpoolWriter
from modelyard.limits.gcra import SharedGcra
from modelyard.limits.ports import RateDecision
from modelyard.models.load import profile_of
from modelyard.predict import Predictor
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable
from modelyard.runtimes import RUNTIMES
from modelyard.testing import MemoryKeyStore

KEY_FILE = "BENCH_KEY_FILE"


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


async def main(model: Path, port: int, without: set[str]) -> None:
    settings = Settings(batching=BatchingSettings(max_rows=1)) if "batching" in without else Settings()
    clock, loop, store = SystemClock(), asyncio.get_running_loop(), MemoryKeyStore()
    made = KeyIssuer(store, clock).create("bench", rate=parse_rate("1000000/s"))
    Path(os.environ[KEY_FILE]).write_text(made.text.get_secret_value())
    keys: Any = KeyTable(store.snapshot())
    if "keys" in without:
        keys = NoKeys(keys.authenticate(made.text.get_secret_value().encode(), 0.0))
    servable = load(model, settings)
    folder = Path(tempfile.mkdtemp(prefix="modelyard-staged-"))
    limits: Any = NoLimits() if "limits" in without else SharedGcra.attach(SharedGcra.create(16), clock)
    journal: Any = NoJournal() if "journal" in without else SpoolWriter(folder, 1, unbounded(settings).journal, clock)
    predictor = Predictor(
        settings=settings,
        loop=loop,
        executor=ThreadPoolExecutor(1),
        decoder=ThreadPoolExecutor(1),
        counter=limits,
        journal=journal,
        commit=commit_at_once,
        next_id=(ids := PredictionIds(1).next),
        render_error=render_error,
        codecs=CODECS,
        keys=keys,
        table=RoutingTable(1, [Endpoint("m", "m", (("1", 100),))], {("m", "1"): servable}),
    )
    shared = Shared(predictor, settings.http, render_error, ids)
    config = Config(refuse, ws="none", lifespan="off", access_log=False, log_config=None)
    config.load()
    protocol = bind(shared)
    server = await loop.create_server(lambda: protocol(config, shared.state, {}, loop), "127.0.0.1", port)
    await server.serve_forever()


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """No other route is there."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def unbounded(settings: Settings) -> Settings:
    journal = settings.journal.model_copy(update={"max_spool_bytes": 1 << 36})
    return settings.model_copy(update={"journal": journal})


def load(model: Path, settings: Settings) -> Servable:
    raise NotImplementedError


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])))
