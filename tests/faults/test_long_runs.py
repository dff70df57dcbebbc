"""Load for longer: random kills, replaced processes, a soak with a leak that must be found, fairness, a full spool at
the start (P1, P2, P4, P9; K4, D2, L6, L7, L8, L12)."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import trained
from acknowledged import alive, free_port
from figures import record
from long_load import FastCallers, balance
from misdeed import LEAK
from raw_http import Caller, request
from server import RunningServer, until
from stock import Stock

from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.frame import encode_frame
from modelyard.journal.spool import SpoolWriter, spool_bytes
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record

Stocked = Callable[..., RunningServer]
SEED = 20261125
CANCER = "/v2/models/cancer/infer"
ROOMY = {"models.unhealthy_deaths": "1000000", "journal.max_spool_bytes": str(16 * 1024**3), "log.level": "warning"}
KILLS, REQUESTS = 300, 1_000_000


@pytest.fixture
def callers(tmp_path: Path) -> Iterator[Callable[..., FastCallers]]:
    """Fast callers that do not outlive the test."""
    made: list[FastCallers] = []

    def start(server: RunningServer, key: str, **options: int) -> FastCallers:
        made.append(FastCallers(server.port, key, tmp_path, **options))
        return made[-1]

    yield start
    for one in made:
        one.end()


def kill_and_recover(server: RunningServer, role: str, chance: random.Random, start: Callable[[], RunningServer]) -> (
    tuple[RunningServer, float]
):  # fmt: skip
    """One kill -9; the server that serves then, and the seconds until the role was filled again."""
    begun = time.monotonic()
    if role == "parent":
        family = [*server.worker_pids(), *server.drain_pids()]
        server.signal(signal.SIGKILL)
        server.process.wait(10)
        until(lambda: not any(map(alive, family)), 20, "the orphans end")
        return start(), time.monotonic() - begun
    pids = server.worker_pids if role == "worker" else server.drain_pids
    before = until(pids, 20, f"a {role}")
    with suppress(ProcessLookupError):
        os.kill(chance.choice(before), signal.SIGKILL)
    until(lambda: len(pids()) >= len(before) and set(pids()) != set(before), 30, f"the {role}'s successor")
    return server, time.monotonic() - begun


@pytest.mark.long
def test_three_hundred_random_kills_under_load(
    stocked: Stocked, stock: Stock, callers: Callable[..., FastCallers], tmp_path: Path
) -> None:
    """K4 P1: 300 kills of workers (most), drain and parent at random moments under load, and a million requests: every
    acknowledged prediction is on record exactly once, with the answer that was given."""
    chance = random.Random(SEED)
    roles = ["worker"] * 210 + ["drain"] * 75 + ["parent"] * 15
    chance.shuffle(roles)
    port = free_port()

    def start() -> RunningServer:
        return stocked(workers=3, settings=ROOMY, arguments=("--port", str(port)))

    server = start()
    load = callers(server, stock.key, connections=24, seed=SEED)
    slowest = {"worker": 0.0, "drain": 0.0, "parent": 0.0}
    for number, role in enumerate(roles, 1):
        time.sleep(0.3 + chance.random())
        server, took = kill_and_recover(server, role, chance, start)
        slowest[role] = max(slowest[role], took)
        if number % 20 == 0:
            print(f"kill {number} of {len(roles)}, seed {SEED}: {dict(load.counts)}", flush=True)
    until(lambda: load.counts["sent"] >= REQUESTS, 1800, f"{REQUESTS} requests")
    acknowledged = load.stop()
    server.stop()
    books = balance(server.data, acknowledged, tmp_path / "log.jsonl")
    counts = {role: roles.count(role) for role in slowest}
    record("K4 kills", seed=SEED, kills=len(roles), **counts, requests=load.counts["sent"], cut=load.counts["cut"],
           slowest_s={role: round(took, 1) for role, took in slowest.items()}, **books)  # fmt: skip
    assert (books["missing"], books["twice"], books["different"]) == (0, 0, 0)
    assert len(roles) >= KILLS
    assert load.counts["sent"] >= REQUESTS


def reload_under_load(
    stocked: Stocked, stock: Stock, callers: Callable[..., FastCallers], tmp_path: Path, times: int
) -> None:
    server = stocked(workers=2, settings={"journal.max_spool_bytes": str(16 * 1024**3)})
    load = callers(server, stock.key, connections=8)
    for number in range(times):
        before = set(server.worker_pids())
        server.signal(signal.SIGUSR2)
        until(lambda n=number: len(server.events("server.reloaded")) > n, 90, "the replacement")
        assert not before & set(server.worker_pids())
    more = load.counts["acknowledged"] + 50
    until(lambda: load.counts["acknowledged"] > more, 30, "answers afterwards")
    acknowledged = load.stop()
    server.stop()
    books = balance(server.data, acknowledged, tmp_path / "log.jsonl")
    record(f"D2 replacements, {times}", replacements=times, requests=load.counts["sent"], failed=load.counts["cut"],
           refused=load.counts["refused"], **books)  # fmt: skip
    assert (load.counts["cut"], load.counts["refused"]) == (0, 0)
    assert (books["missing"], books["twice"], books["different"]) == (0, 0, 0)


def test_processes_are_replaced_under_load(
    stocked: Stocked, stock: Stock, callers: Callable[..., FastCallers], tmp_path: Path
) -> None:
    """D2 P2: all workers replaced twice on the inherited socket while callers ask: no request fails, all are logged."""
    reload_under_load(stocked, stock, callers, tmp_path, 2)


@pytest.mark.long
def test_processes_are_replaced_fifty_times(
    stocked: Stocked, stock: Stock, callers: Callable[..., FastCallers], tmp_path: Path
) -> None:
    """D2 P2: fifty times."""
    reload_under_load(stocked, stock, callers, tmp_path, 50)


# A soak, and a leak that its gate must find


def kept_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def slope_bytes_per_minute(samples: list[tuple[float, int]]) -> float:
    """Growth by least squares over the last two thirds of the samples: what settles first is no leak."""
    late = samples[len(samples) // 3 :]
    times, sizes = zip(*late, strict=True)
    return float(np.polyfit(np.array(times) / 60, np.array(sizes), 1)[0])


class Mixture:
    """Weighted scenarios, one after the other on fresh or kept connections; `leaking` adds a model that leaks."""

    def __init__(self, server: RunningServer, key: str, seed: int, leaking: bool = False) -> None:
        self._server, self._key = server, key
        self._chance = random.Random(seed)
        self._kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._leaking = leaking
        self.done = dict.fromkeys(("good", "slow", "vanish", "malformed", "change"), 0)
        rows = trained.cancer().rows
        self._bodies = [json.dumps(trained.infer_body(X=rows[n : n + 1])) for n in range(100)]

    def step(self) -> None:
        name = self._chance.choices(list(self.done), (70, 10, 10, 5, 1))[0]
        getattr(self, f"_{name}")()
        self.done[name] += 1

    def _post(self, path: str, body: str) -> int:
        self._kept.request("POST", path, body, {"x-api-key": self._key})
        answer = self._kept.getresponse()
        answer.read()
        return answer.status

    def _good(self) -> None:
        if self._leaking:
            ones = np.ones((1, 1), np.float32)
            assert self._post("/v2/models/guilty/infer", json.dumps(trained.infer_body(a=ones * LEAK, b=ones))) == 200
        assert self._post(CANCER, self._chance.choice(self._bodies)) == 200

    def _slow(self) -> None:
        value = np.array([[trained.SLOW_ABOVE + 50]], np.float32)
        assert self._post("/v2/models/slow/infer", json.dumps(trained.infer_body(x=value))) == 200

    def _vanish(self) -> None:
        data = request(CANCER, self._chance.choice(self._bodies), key=self._key)
        caller = Caller(self._server.port)
        caller.send(data[: self._chance.randrange(1, len(data) + 1)])
        caller.close()
        Caller.opened.remove(caller)

    def _malformed(self) -> None:
        assert self._post(CANCER, '{"inputs": [' * self._chance.randrange(1, 99)) == 400

    def _change(self) -> None:
        assert self._server.set_traffic("cancer", v1=100).status == 200

    def close(self) -> None:
        self._kept.close()


def soak(server: RunningServer, key: str, seconds: float, leaking: bool = False) -> tuple[float, int, dict[str, int]]:
    """Growth in bytes a minute, descriptors beyond those at the start, and what was done."""
    (pid,) = server.worker_pids()
    mixture = Mixture(server, key, SEED, leaking)
    samples: list[tuple[float, int]] = []
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    begun = told = time.monotonic()
    while (now := time.monotonic()) - begun < seconds:
        mixture.step()
        if not samples or now - samples[-1][0] > seconds / 120:
            samples.append((now, kept_bytes(pid)))
        if now - told > 60:
            told = now
            print(f"soak, {now - begun:.0f} s: {samples[-1][1] / 1e6:.1f} MB, {mixture.done}", flush=True)
    mixture.close()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 5, 15, "the descriptors come back")
    assert server.worker_pids() == [pid]
    return slope_bytes_per_minute(samples), len(os.listdir(f"/proc/{pid}/fd")) - descriptors, mixture.done


GATE_BYTES_PER_MINUTE = 1024 * 1024


@pytest.mark.long
def test_a_soak_keeps_its_memory(stocked: Stocked, stock: Stock) -> None:
    """L6 P4: ten minutes of good, slow, broken and vanishing callers and changes of traffic: memory grows by less than
    1 MiB a minute, descriptors by none, and no worker is replaced."""
    server = stocked(workers=1)
    slope, descriptors, done = soak(server, stock.key, 600)
    record("L6 soak", seconds=600, seed=SEED, growth_bytes_a_minute=round(slope), descriptors_more=descriptors, **done)
    assert slope < GATE_BYTES_PER_MINUTE
    server.stop()


@pytest.mark.long
@pytest.mark.usefixtures("misdeeds")
def test_the_soak_finds_a_leak(stocked: Stocked, stock: Stock) -> None:
    """L7: with a model that keeps 64 KiB of each request the same gate fails within a minute: it can fail."""
    server = stocked(workers=1)
    slope, _, _ = soak(server, stock.key, 60, leaking=True)
    record("L7 planted leak", growth_bytes_a_minute=round(slope))
    assert slope > GATE_BYTES_PER_MINUTE
    server.stop()


def test_the_gate_tells_a_leak_from_noise() -> None:
    """L7: the gate on made-up samples: noise and a warm-up that settles pass, a leak of 2 MiB a minute does not."""
    chance = random.Random(SEED)
    noise = [(5.0 * n, round(100e6 + min(n, 30) * 1e6 + chance.gauss(0, 2e5))) for n in range(120)]
    assert abs(slope_bytes_per_minute(noise)) < GATE_BYTES_PER_MINUTE
    leak = [(at, round(size + at / 60 * 2 * 1024 * 1024)) for at, size in noise]
    assert slope_bytes_per_minute(leak) > GATE_BYTES_PER_MINUTE


# Fairness, and a start with much to do


def times_ms(server: RunningServer, key: str, requests: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps(trained.infer_body(X=trained.cancer().rows[:1]))
    found = []
    for _ in range(requests):
        begun = time.perf_counter()
        connection.request("POST", CANCER, body, {"x-api-key": key})
        assert connection.getresponse().read().startswith(b'{"model_name"')
        found.append((time.perf_counter() - begun) * 1e3)
    connection.close()
    return found


def fairness(server: RunningServer, key: str, requests: int) -> None:
    alone = times_ms(server, key, requests)
    over = threading.Event()
    value = np.array([[trained.SLOW_ABOVE + 2000]], np.float32)
    slow_body = json.dumps(trained.infer_body(x=value))
    answered: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not over.is_set():
            connection.request("POST", "/v2/models/slow/infer", slow_body, {"x-api-key": key})
            reply = connection.getresponse()
            reply.read()
            answered.append(reply.status)
        connection.close()

    slow = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in slow:
        thread.start()
    try:
        beside = times_ms(server, key, requests)
    finally:
        over.set()
    for thread in slow:
        thread.join(60)
    p99 = [statistics.quantiles(found, n=100)[98] for found in (alone, beside)]
    record(f"L8 fairness, {requests}", requests=requests, fast_alone_p99_ms=round(p99[0], 1),
           fast_beside_slow_p99_ms=round(p99[1], 1), slow_answered=len(answered))  # fmt: skip
    assert set(answered) <= {200}
    assert statistics.median(beside) < 50 + 10 * statistics.median(alone), "the fast model waits for the slow one"


def test_a_slow_model_does_not_hold_up_a_fast_one(stocked: Stocked, stock: Stock) -> None:
    """L8 P4: four callers of a model that takes hundreds of milliseconds keep its executor busy; the fast model's
    callers on the same worker are answered beside it."""
    server = stocked(workers=1)
    fairness(server, stock.key, 100)
    server.stop()


def test_nor_one_that_left_the_loop(stocked: Stocked, stock: Stock) -> None:
    """L8 P4: a fast model off the loop, as after one cold run, has a thread beside the slow one's."""
    server = stocked(workers=1, settings={"batching.max_loop_run_us": "1"})
    fairness(server, stock.key, 40)
    server.stop()


@pytest.mark.long
def test_fairness_for_longer(stocked: Stocked, stock: Stock) -> None:
    """L8: 5,000 requests."""
    server = stocked(workers=1)
    fairness(server, stock.key, 5000)
    server.stop()


def start_with_spool(stocked: Stocked, stock: Stock, data: Path, records: int, size: int) -> None:
    """Fills the spool of a server that is not running, starts it, and waits until all is in the log."""
    stock.copy(data)
    stores = open_stores(Settings(data=data), data)
    published = stores.registry.version("cancer", "1")
    stores.close()
    writer = SpoolWriter(data / "spool", 77, JournalSettings(max_spool_bytes=8 * 1024**3), SystemClock())
    for first in range(0, records, 100):
        parts = []
        for number in range(first, min(first + 100, records)):
            header = prediction_record(f"spooled-{number}", manifest=published.digest).header
            parts += encode_frame(header, b'{"inputs":[],"pad":"%s"}' % (b"x" * size), b"{}")
        writer.append(parts)
    writer.close()
    waiting = spool_bytes(data / "spool")
    begun = time.monotonic()
    server = stocked(workers=1)
    until(lambda: server.ask("GET", "/v2/health/ready", key=None).status == 200, 60, "ready")
    ready_s = time.monotonic() - begun
    assert server.ask("POST", CANCER, trained.infer_body(X=trained.cancer().rows[:1]), key=stock.key).status == 200
    until(lambda: spool_bytes(data / "spool") < waiting / 100, 600, "the drain")
    drained_s = time.monotonic() - begun
    until(lambda: server.count() >= records, 60, "the log")
    record(f"L12 start with a spool, {records}", spool_bytes=waiting, records=records, ready_after_s=round(ready_s, 1),
           drained_after_s=round(drained_s, 1))  # fmt: skip
    assert ready_s < 30
    server.stop()


def test_a_start_with_a_spool(stocked: Stocked, stock: Stock, tmp_path: Path) -> None:
    """L12 P9: a server that starts with 4 MB to drain is ready at once, answers, and brings all of it into the log."""
    start_with_spool(stocked, stock, tmp_path / "data", 2000, 2000)


@pytest.mark.long
def test_a_start_with_a_large_spool(stocked: Stocked, stock: Stock, tmp_path: Path) -> None:
    """L12: 200 MB."""
    start_with_spool(stocked, stock, tmp_path / "data", 100_000, 2000)
