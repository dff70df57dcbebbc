"""Your answer is yours (P3): callers of one batch that leave, fail or come too late hurt nobody, over real sockets."""

from __future__ import annotations

import io
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from http_worker import HttpWorker
from raw_http import Caller, Reply, request, until

from modelyard.core.settings import BatchingSettings, HttpSettings, LimitsSettings, Settings
from modelyard.core.types import Tensors
from modelyard.journal.frame import MARK, read_frames
from modelyard.journal.record import RecordHeader
from modelyard.testing import StubModel, servable

NATIVE = "/v2/models/tree/infer"
TWIN = "/v2/models/tr%65e/infer"
BATCH = 8
SEED = 20261124


class Gate:
    """Stands before a model's runs: each waits until `let` lets it go; `entered` counts. Open at first."""

    def __init__(self) -> None:
        self.shut = False
        self.entered = 0
        self._free = threading.Semaphore(0)

    def __call__(self, _: Tensors) -> None:
        if self.shut:
            self.entered += 1
            assert self._free.acquire(timeout=10)

    def let(self, runs: int = 1) -> None:
        """Lets runs go."""
        self._free.release(runs)

    def close(self) -> None:
        """From now on runs wait."""
        self.shut, self.entered, self._free = True, 0, threading.Semaphore(0)

    def open(self) -> None:
        """From now on runs go."""
        self.shut = False


class GatedWorker(HttpWorker):
    """A worker whose one model stands behind a gate."""

    def __init__(self, settings: Settings | None = None, in_loop: bool = False) -> None:
        self.gate = Gate()
        self.model = StubModel(before_run=self.gate)
        super().__init__(settings, [servable(self.model, in_loop=in_loop)])

    def begin(self) -> None:
        """Forgets what was before."""
        self.model.calls.clear()
        self.journal.turns.clear()

    def logged(self) -> list[RecordHeader]:
        """The records written since, each from its frame."""
        frames = [
            frame for turn in list(self.journal.turns) for frame in read_frames(io.BytesIO(b"".join(turn) + MARK), 0)
        ]
        return [frame.record_header() for frame in frames]

    def is_quiet(self) -> bool:
        """Whether nothing is in flight and every permit is back."""
        return not self.predictor.in_flight and self.predictor._permits.taken == 0 and not self.shared.inflight_bytes


@pytest.fixture(scope="module")
def slow() -> Iterator[GatedWorker]:
    """The model runs in the executor."""
    started = GatedWorker()
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def fast() -> Iterator[GatedWorker]:
    """The model runs on the loop, however long the gate holds it."""
    worker = GatedWorker(in_loop=True)
    worker.settings = worker.settings.model_copy(
        update={"batching": worker.settings.batching.model_copy(update={"max_loop_run_us": 1e9})}
    )
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    yield
    Caller.close_all()


def infer(number: float, rows: int = 1) -> str:
    data = [number] * (2 * rows)
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data}]})


def leave(caller: Caller, how: str) -> None:
    """The caller closes its end (fin) or is cut off (rst)."""
    if how == "rst":
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


def connect(worker: HttpWorker, count: int) -> list[Caller]:
    """Connections that the worker knows, and no others: those of an earlier test may take a moment to go."""
    Caller.close_all()
    until(lambda: open_connections(worker) == 0)
    callers = [Caller(worker.port) for _ in range(count)]
    until(lambda: open_connections(worker) == count)
    return callers


def open_connections(worker: HttpWorker) -> int:
    return int(worker.on_loop(lambda: len(worker.shared.connections)))


def numbers(reply: Reply) -> list[float]:
    assert reply.status == 200, reply
    return list(reply.json["outputs"][0]["data"])


def check_mates(worker: GatedWorker, callers: list[Caller], gone: int) -> list[RecordHeader]:
    """All but the one that left have their own answers; nothing is held. Gives the records of the one that left."""
    told = set()
    for number, caller in enumerate(callers):
        if number != gone:
            reply = caller.reply()
            assert numbers(reply) == [2.0 * number] * 2
            told.add(reply.headers["x-prediction-id"])
    until(worker.is_quiet)
    logged = worker.logged()
    assert len({record.id for record in logged}) == len(logged), "a record was written twice"
    assert {record.id for record in logged if record.status == 200} >= told
    return [record for record in logged if record.id not in told]


@pytest.mark.parametrize("place", range(BATCH))
@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_caller_that_leaves_hurts_nobody(slow: GatedWorker, target: str, moment: str, how: str, place: int) -> None:
    """K7: of eight callers in one batch of the executor one leaves before, during or after the run, at each place:
    the seven get their own answers, permits come back, the one is on record once."""
    slow.begin()
    plug, *callers = connect(slow, BATCH + 1)
    slow.gate.close()
    plug.send(request(NATIVE, infer(99), key=slow.key))
    until(lambda: slow.gate.entered == 1)
    for number, caller in enumerate(callers):
        caller.send(request(target, infer(number), key=slow.key))
    until(lambda: len(slow.predictor.in_flight) == BATCH + 1)
    if moment == "before":
        depart(slow, callers[place], how)
    slow.gate.let()
    until(lambda: slow.gate.entered == 2)
    if moment == "during":
        depart(slow, callers[place], how)
    slow.gate.let()
    slow.gate.open()
    if moment == "after":
        until(slow.is_quiet)
        leave(callers[place], how)
    plugged = plug.reply()
    assert numbers(plugged) == [198.0] * 2
    extra = check_mates(slow, callers, place)
    (known,) = (record for record in extra if record.id != plugged.headers["x-prediction-id"])
    assert (known.status, known.code) in {(200, ""), (499, "client_gone")}
    if how == "rst" and moment != "after":
        assert known.status == 499
        assert slow.model.calls == [1, BATCH - 1 if moment == "before" else BATCH]


def depart(worker: GatedWorker, caller: Caller, how: str) -> None:
    """The caller leaves, and the worker has seen it."""
    before = worker.on_loop(lambda: (len(worker.shared.connections), half_closed(worker)))
    leave(caller, how)
    until(lambda: worker.on_loop(lambda: (len(worker.shared.connections), half_closed(worker))) != before)


def half_closed(worker: GatedWorker) -> int:
    return sum(connection.half_closed for connection in worker.shared.connections)


@pytest.mark.parametrize("place", range(BATCH))
@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_caller_that_leaves_a_batch_of_the_loop(fast: GatedWorker, moment: str, how: str, place: int) -> None:
    """K7 on the loop: eight requests of one turn, one caller leaves before the loop reads them or while it runs."""
    fast.begin()
    callers = connect(fast, BATCH)
    held, release = threading.Event(), threading.Event()
    fast.loop.call_soon_threadsafe(lambda: (held.set(), release.wait(10)))
    assert held.wait(10)
    for number, caller in enumerate(callers):
        caller.send(request(NATIVE, infer(number), key=fast.key))
    if moment == "before":
        leave(callers[place], how)
    else:
        fast.gate.close()
    release.set()
    if moment == "during":
        until(lambda: fast.gate.entered == 1)
        leave(callers[place], how)
        fast.gate.open()
        fast.gate.let()
    extra = check_mates(fast, callers, place)
    assert fast.model.calls in ([BATCH], [BATCH - 1])
    assert len(extra) <= 1
    assert all((record.status, record.code) in {(200, ""), (499, "client_gone")} for record in extra)


@pytest.mark.parametrize("place", range(BATCH))
def test_a_failing_neighbour_hurts_nobody(fast: GatedWorker, place: int) -> None:
    """The model fails on one row of the batch: its caller hears that, the others get their answers."""
    fast.begin()
    fast.model.fails_when = lambda inputs: bool((inputs["x"] == place).any())
    callers = connect(fast, BATCH)
    held, release = threading.Event(), threading.Event()
    fast.loop.call_soon_threadsafe(lambda: (held.set(), release.wait(10)))
    assert held.wait(10)
    for number, caller in enumerate(callers):
        caller.send(request(NATIVE, infer(number), key=fast.key))
    release.set()
    refused = callers[place].reply()
    fast.model.fails_when = None
    assert refused.json["code"] == "model_failed"
    (record,) = check_mates(fast, callers, place)
    assert (record.id, record.code) == (refused.headers["x-prediction-id"], "model_failed")
    assert fast.model.calls == [BATCH] + [1] * BATCH


def settled(worker: GatedWorker, callers: Sequence[Caller], surplus: int) -> list[Reply]:
    """Once the surplus is on record, all runs go: exactly so many got 503, all others their own numbers, and each has
    its record. The refusals."""
    until(lambda: len(worker.logged()) == surplus)
    worker.gate.open()
    worker.gate.let(10)
    replies = [caller.reply() for caller in callers]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(refused) == surplus
    for number, reply in enumerate(replies):
        assert reply.status == 503 or numbers(reply) == [2.0 * number] * 2
    until(worker.is_quiet)
    assert len(worker.logged()) == len(callers)
    return refused


@pytest.mark.parametrize("target", [NATIVE, TWIN])
@pytest.mark.parametrize(("capacity", "surplus"), [(1, 1), (4, 3), (8, 8)])
def test_exactly_the_surplus_is_refused(target: str, capacity: int, surplus: int) -> None:
    """L4: with room for q, q + k at once: exactly k get 503 with Retry-After at once, q are answered, and then
    there is room for q again."""
    worker = GatedWorker(Settings(limits=LimitsSettings(max_concurrency=capacity)))
    worker.start()
    try:
        callers = connect(worker, capacity + surplus)
        for _ in range(2):
            worker.begin()
            worker.gate.close()
            for number, caller in enumerate(callers):
                caller.send(request(target, infer(number), key=worker.key))
            refused = settled(worker, callers, surplus)
            assert {(r.json["code"], r.headers["retry-after"]) for r in refused} == {("server_busy", "1")}
    finally:
        worker.gate.open()
        worker.gate.let(10)
        worker.stop()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
@pytest.mark.parametrize(("places", "surplus"), [(1, 1), (4, 3), (8, 20)])
def test_exactly_the_surplus_of_a_queue_is_refused(target: str, places: int, surplus: int) -> None:
    """L4: one request runs, q wait; of q + k more exactly k get 503 `overloaded` with Retry-After while the run goes
    on; a caller on another connection is told before those that wait, each has its record."""
    worker = GatedWorker(Settings(batching=BatchingSettings(max_queue=places)))
    worker.start()
    try:
        callers = connect(worker, 1 + places + surplus)
        for _ in range(2):
            worker.begin()
            worker.gate.close()
            callers[0].send(request(target, infer(0), key=worker.key))
            until(lambda: worker.gate.entered == 1)
            for number, caller in enumerate(callers[1:], 1):
                caller.send(request(target, infer(number), key=worker.key))
            refused = settled(worker, callers, surplus)
            assert {reply.json["code"] for reply in refused} == {"overloaded"}
            assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    finally:
        worker.gate.open()
        worker.gate.let(10)
        worker.stop()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_deadline_answers_while_the_run_goes_on(target: str) -> None:
    """All of a batch that runs too long get 503 in time; its late result reaches nobody, each is on record once."""
    worker = GatedWorker(Settings(http=HttpSettings(request_timeout_s=0.3)))
    worker.start()
    try:
        worker.gate.close()
        callers = connect(worker, 3)
        for number, caller in enumerate(callers):
            caller.send(request(target, infer(number), key=worker.key))
        replies = [caller.reply() for caller in callers]
        assert {(reply.status, reply.json["code"]) for reply in replies} == {(503, "request_timeout")}
        assert worker.predictor._permits.taken == 0
        worker.gate.open()
        worker.gate.let(10)
        for number, caller in enumerate(callers, 10):
            caller.send(request(target, infer(number), key=worker.key))
            assert numbers(caller.reply()) == [2.0 * number] * 2
        assert sorted(record.status for record in worker.logged()) == [200] * 3 + [503] * 3
    finally:
        worker.gate.open()
        worker.gate.let(10)
        worker.stop()


@pytest.mark.parametrize("where", ["loop", "executor"])
def test_everybody_gets_f_of_the_own_input(fast: GatedWorker, slow: GatedWorker, where: str) -> None:
    """L13, short: 10^4 rows in requests of random sizes over 8 connections, up to 4 on the way on each: every
    answer is twice its own input (seeded)."""
    worker = fast if where == "loop" else slow
    worker.begin()

    def ask(number: int) -> int:
        chance = np.random.default_rng(SEED + number)
        caller, rows_done = Caller(worker.port), 0
        while rows_done < 1250:
            owed = []
            for _ in range(int(chance.integers(1, 5))):
                rows = int(chance.integers(1, 60))
                x = chance.normal(size=(rows, 2)).astype(np.float32)
                body = {"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": x.ravel().tolist()}]}
                caller.send(request(NATIVE, json.dumps(body), key=worker.key))
                owed.append(x)
            for x in owed:
                np.testing.assert_array_equal(np.float32(numbers(caller.reply())), (x * 2).ravel())
                rows_done += len(x)
        return rows_done

    with ThreadPoolExecutor(8) as pool:
        rows = sum(pool.map(ask, range(8)))
    assert rows >= 10_000
    until(worker.is_quiet)
    assert max(worker.model.calls) > 59, "no two requests ever shared a batch"
    assert sum(record.rows for record in worker.logged()) == rows


def test_shuffled_departures(slow: GatedWorker) -> None:
    """Rounds of random sizes in which random callers leave at random moments: the others get their own answers and
    in the end nothing is held (seeded)."""
    chance = random.Random(SEED)
    for _ in range(15):
        slow.begin()
        callers = connect(slow, chance.randrange(2, 20))
        leaving = {n for n in range(len(callers)) if chance.random() < 0.4}
        slow.gate.close()
        for number, caller in enumerate(callers):
            caller.send(request(chance.choice((NATIVE, TWIN)), infer(number), key=slow.key))
            if number in leaving and chance.random() < 0.5:
                leave(caller, chance.choice(("rst", "fin")))
                slow.gate.let()
        slow.gate.open()
        slow.gate.let(len(callers))
        for number, caller in enumerate(callers):
            if number not in leaving:
                assert numbers(caller.reply()) == [2.0 * number] * 2
        for number in leaving:
            callers[number].close()
        until(slow.is_quiet)
        logged = slow.logged()
        assert len({record.id for record in logged}) == len(logged) <= len(callers)
