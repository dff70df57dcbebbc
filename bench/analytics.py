"""`python -m bench.analytics`: how long a dashboard's question takes among so many records, and what the questions cost
those who predict meanwhile; on SQLite and on PostgreSQL.

The log is filled by its database, once with records a millisecond apart that end now, once with records spread over 90
days. On each:
* what rolling up costs, and each question asked of the store: the slowest of a few times;
* a server on that log: its capacity (64 connections that never pause), then half of it (they rest between requests),
  alone and with one question after the other, PAUSE_S apart, asked over HTTP: p50 and p99 of the predictions, and the
  slowest of each question.
The server has one core, PostgreSQL and all clients share the other. For 10,000,000 records it needs 15 GB of disk.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench import models
from bench.bodies import Body, as_json
from bench.drain import on_core
from bench.filled import fill
from bench.load import measure
from bench.long_rates import spool_mb
from bench.servers import CLIENT_CORE, Target, modelyard, published
from modelyard.analytics.desk import AnalyticsDesk
from modelyard.core.settings import Settings
from modelyard.http.forms.figures import FIGURES
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock

QUESTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "all, a day": ("requests", {}),
    "all, ninety days": ("requests", {"since": "90d"}),
    "by version, ninety days": ("requests", {"since": "90d", "by": "model,version"}),
    "by client, ninety days": ("requests", {"since": "90d", "by": "client"}),
    "by hour, thirty days": ("requests", {"since": "30d", "interval": "hour"}),
    "by hour and version, seven days": ("requests", {"since": "7d", "interval": "hour", "by": "version"}),
    "by minute, an hour": ("requests", {"since": "1h", "interval": "minute"}),
    "by day, ninety days": ("requests", {"since": "90d", "interval": "day"}),
    "a client, ninety days": ("requests", {"since": "90d", "client": "c3", "by": "endpoint"}),
    "the last two minutes": ("requests", {"since": "2m", "by": "endpoint,client"}),
    "scores, ninety days": ("scores", {"since": "90d", "model": "m1"}),
    "two versions, ninety days": ("comparison", {"since": "90d", "model": "m1", "base": "1", "other": "2"}),
}
REPEATS = 5
DAYS = 90
CONNECTIONS = 64
SPOOL_MB = 1.0
PAUSE_S = 1.0
"""Somebody looks at an answer before the next question."""
USUAL_MS = 1.0
"""What an answer takes, about, at half of what can be answered."""
RESTING = "function delay() return math.random(0, %d) end"
ADMIN = "bench-administrator-of-the-dashboard"
URL = "MODELYARD_DATABASE__URL"


@contextmanager
def sqlite() -> Iterator[None]:
    """The file in the data folder."""
    yield


@contextmanager
def postgresql() -> Iterator[None]:
    """A throw-away server on the clients' core, for this process and those that it starts."""
    from bench.drain_postgresql import server

    with ExitStack() as stack:
        with on_core(CLIENT_CORE):
            url, _pid = stack.enter_context(server())
        os.environ[URL] = url
        try:
            yield
        finally:
            del os.environ[URL]


DATABASES: dict[str, Callable[[], AbstractContextManager[None]]] = {"sqlite": sqlite, "postgresql": postgresql}


def timed(act: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def asked(stores: Stores, now: float) -> dict[str, float]:
    """The slowest of a few times of each question, in milliseconds; beside them what was rolled up, and how fast."""
    assert stores.analytics is not None
    clock = FakeClock(now)
    desk = AnalyticsDesk(stores.analytics, stores.leases, clock)
    found = {"rolling up everything, s": round(timed(desk.refresh), 1)}
    clock.advance(60.0)
    for name, (question, wanted) in QUESTIONS.items():
        times = [timed(lambda q=question, w=wanted: FIGURES[q](desk, w, clock.now())) for _ in range(REPEATS)]
        found[name] = round(max(times) * 1e3, 1)
    return found


class Questions(threading.Thread):
    """Asks a server one question after the other until `over` is set; `times_ms` by the question's name."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        place = urlsplit(target.url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        self.over = threading.Event()
        self.times_ms: dict[str, list[float]] = {}

    def run(self) -> None:
        for name in itertools.cycle(QUESTIONS):
            self.times_ms.setdefault(name, []).append(timed(lambda name=name: self._ask(*QUESTIONS[name])) * 1e3)
            if self.over.wait(PAUSE_S):
                return

    def _ask(self, question: str, wanted: dict[str, str]) -> None:
        named = dict(wanted)
        of = question if question == "requests" else f"models/{named.pop('model')}/{question}"
        self._connection.request("GET", f"/v1/analytics/{of}?{urlencode(named)}", headers={"x-api-key": ADMIN})
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said[:300]


def beside(data: Path, key: str, body: Body, seconds: float, passes: int, folder: Path) -> dict[str, Any]:
    """Predictions at half of a server's capacity, with and without questions, in turns."""
    extra = {"MODELYARD_AUTH__ADMIN_KEY": ADMIN, "MODELYARD_RETENTION__DAYS": "0"}
    with modelyard(data, key, extra) as target, on_core(CLIENT_CORE):
        capacity = measure(target, body, CONNECTIONS, seconds / 2, folder, refusals=True).requests_per_s
        while spool_mb(data) > SPOOL_MB:  # what the drain has left over would be moved beside the first passes alone
            time.sleep(0.5)
        found: dict[str, list[Any]] = {"alone": [], "asked": []}
        times_ms: dict[str, list[float]] = {}
        for _ in range(passes):
            for name in found:
                questions = Questions(target) if name == "asked" else None
                found[name].append(_half(target, body, capacity / 2, seconds, folder, questions))
                for question, took in (questions.times_ms if questions else {}).items():
                    times_ms.setdefault(question, []).extend(took)
    normal, busy = (statistics.median(one["p99_ms"] for one in several) for several in found.values())
    return {
        "capacity_per_s": round(capacity), "offered_per_s": round(capacity / 2), **found,
        "p99_over_normal": round(busy / normal, 2),
        "slowest_ms": {name: round(max(took), 1) for name, took in times_ms.items()},
    }  # fmt: skip


def _half(
    target: Target, body: Body, rate: float, seconds: float, folder: Path, questions: Questions | None
) -> dict[str, Any]:
    """Requests at a rate: each connection rests after an answer, for a random time of `pause_ms` on average."""
    pause_ms = CONNECTIONS / rate * 1e3 - USUAL_MS
    if questions is not None:
        questions.start()
    try:
        seen = measure(target, body, CONNECTIONS, seconds, folder, RESTING % round(2 * pause_ms), refusals=True)
    finally:
        if questions is not None:
            questions.over.set()
            questions.join(60)
    return {
        "requests_per_s": round(seen.requests_per_s), "p50_ms": round(seen.p50_ms, 2), "p99_ms": round(seen.p99_ms, 2),
        "refused_or_broken": seen.errors,
    }  # fmt: skip


def measured(database: str, apart: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One database with one log."""
    at = nullcontext(chosen.folder) if chosen.folder else tempfile.TemporaryDirectory(prefix="modelyard-bench-")
    with at as name, DATABASES[database]():
        folder = Path(name) / f"{database}-{apart}"
        folder.mkdir(parents=True)
        model, data = models.mlp(folder), folder / "data"
        key = published(data, {"m": model.path})
        stores = open_stores(Settings(), data)
        now = int(time.time())
        step_us = 1000 if apart == "close" else DAYS * 86_400_000_000 // chosen.records
        first_s, database_of = now - chosen.records * step_us // 10**6, stores.log._database  # type: ignore[attr-defined]
        took = timed(lambda: fill(database_of, chosen.records, first_s, step_us))
        found: dict[str, Any] = {"filling, s": round(took, 1), "ms": asked(stores, now)}
        stores.close()
        print(json.dumps({database: {apart: found}}, indent=1), flush=True)
        if chosen.seconds:
            found["beside predictions"] = beside(
                data, key, as_json(model, 1, folder), chosen.seconds, chosen.passes, folder
            )
        return found


def main() -> None:
    """Prints the figures as JSON, each log as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="bench.analytics", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--databases", nargs="*", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--apart", nargs="*", choices=("close", "days"), default=["close", "days"])
    parser.add_argument("--seconds", type=float, default=30, help="length of each load; 0: no predictions")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room; a temporary folder if unset")
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    for database in chosen.databases:
        for apart in chosen.apart:
            found.setdefault(database, {})[apart] = measured(database, apart, chosen)
            print(json.dumps({"records": chosen.records, **found}, indent=1), flush=True)


if __name__ == "__main__":
    main()
