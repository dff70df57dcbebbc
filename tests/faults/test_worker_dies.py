"""Whatever a model does to its worker, only that worker's callers notice, and a version that does it again and again
is taken out (K2, K5, K6, K11; promises P3, P9, P11)."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import trained
from figures import record
from misdeed import ABORT, BLOCK, EXIT, GIL, KILLED, MEMORY, SEGV, SLEEP, SPIN, STOP
from server import RunningServer, until
from stock import Stock

from modelyard.http.processes.supervisor import STALL_S

Stocked = Callable[..., RunningServer]
SUCCESSOR_S = 10.0
"""2 s and the load are promised; tests share their cores with others."""
NEVER = {"models.unhealthy_deaths": "1000"}
HURRIED = {**NEVER, "models.max_run_s": "3", "http.request_timeout_s": "4"}
pytestmark = pytest.mark.usefixtures("misdeeds")


def send(connection: http.client.HTTPConnection, key: str, model: str, value: float) -> None:
    """A request whose value may be a misdeed."""
    one = np.array([[value]], np.float32)
    asked = {"guilty": {"a": one, "b": np.ones((1, 1), np.float32)}, "slow": {"x": one}}[model]
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps(trained.infer_body(**asked)), {"x-api-key": key})


def cut(connection: http.client.HTTPConnection) -> bool:
    """Whether the connection ends without an answer."""
    try:
        connection.getresponse().read()
    except (http.client.HTTPException, OSError):
        return True
    finally:
        connection.close()
    return False


WORDS = {"inputs": [{"name": "words", "shape": [1, 2], "datatype": "BYTES", "data": ["right", "answer"]}]}


def answers(connection: http.client.HTTPConnection, key: str) -> bool:
    """Whether the innocent model answers on this connection, right."""
    connection.request("POST", "/v2/models/innocent/infer", json.dumps(WORDS), {"x-api-key": key})
    reply = connection.getresponse()
    text = reply.read()
    return reply.status == 200 and json.loads(text)["outputs"][0]["data"] == ["right", "answer"]


def commit(server: RunningServer, key: str, model: str, deed: float, within_s: float = SUCCESSOR_S) -> float:
    """One misdeed on one worker of two: its connection is cut, the other worker's goes on answering all the while,
    a successor comes. The seconds until both workers accept again."""
    with server.every_worker() as by_pid:
        (victim, its), (other, others) = by_pid.items()
        begun = time.monotonic()
        send(its, key, model, deed)

        def gone() -> bool:
            assert answers(others, key), "the other worker stopped answering"
            return victim not in server.worker_pids()

        until(gone, within_s + SUCCESSOR_S, "the worker's end")
        assert cut(its)
        until(lambda: len(server.worker_pids()) == 2, SUCCESSOR_S, "a successor")
        until(lambda: _accepting(server) == 2, SUCCESSOR_S, "a successor that accepts")
        assert answers(others, key)
        assert other in server.worker_pids()
        return time.monotonic() - begun


def _accepting(server: RunningServer) -> int:
    return len(server.events("worker.started")) - len(server.events("worker.lost"))


def die(server: RunningServer, key: str, deeds: list[tuple[str, float]]) -> None:
    """Each deed in turn; then more memory than there may be, which is an error of that one request alone."""
    took = [commit(server, key, model, deed) for model, deed in deeds]
    with server.every_worker() as by_pid:
        connection = next(iter(by_pid.values()))
        send(connection, key, "guilty", MEMORY)
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["code"]) == (500, "model_failed")
        assert answers(connection, key)
    assert len(server.events("worker.lost")) == len(took)
    assert server.events("model.unhealthy") == []
    record("K5 deaths", deaths=len(took), slowest_recovery_s=round(max(took), 1))
    server.stop()


def test_a_worker_that_dies_hurts_only_its_own_callers(stocked: Stocked, stock: Stock) -> None:
    """K2 K5 P3 P11: exit(1) on the loop, a wild pointer in the executor: the worker's callers see their connection
    close, the other worker's nothing, a successor comes by itself."""
    die(stocked(workers=2, settings=NEVER), stock.key, [("guilty", EXIT), ("slow", SEGV)])


@pytest.mark.long
def test_every_way_to_die_on_the_loop_and_off_it(stocked: Stocked, stock: Stock) -> None:
    """K2 K5: exit(1), a wild pointer, abort(), a kill as for lack of memory, in both places, three rounds."""
    deeds = [(model, deed) for model in ("guilty", "slow") for deed in (EXIT, SEGV, ABORT, KILLED)]
    die(stocked(workers=2, settings=NEVER), stock.key, deeds * 3)


def hang(server: RunningServer, key: str, deeds: list[tuple[str, float]]) -> None:
    """Each deed on a worker of its own, all at once; one worker more answers all the while."""
    workers = len(deeds) + 1
    with server.every_worker() as by_pid:
        (free, others), *victims = by_pid.items()
        begun = time.monotonic()
        for (_, its), (model, deed) in zip(victims, deeds, strict=True):
            send(its, key, model, deed)
        hung = {pid for pid, _ in victims}

        def replaced() -> bool:
            assert answers(others, key)
            return not hung & set(server.worker_pids())

        until(replaced, STALL_S + 60, "their ends")
        took = time.monotonic() - begun
        until(lambda: len(server.worker_pids()) == workers, SUCCESSOR_S, "their successors")
        assert free in server.worker_pids()
        for (_, its), (_, deed) in zip(victims, deeds, strict=True):
            assert cut(its) or deed == SLEEP  # its loop lived: it may have said 503 in time
    record("K5 hangs", hangs=len(deeds), all_replaced_after_s=round(took, 1))
    server.stop()


def test_a_worker_that_hangs_is_replaced(stocked: Stocked, stock: Stock) -> None:
    """K5 P9: a loop that never ends, and a run that lasts too long off the loop: both workers are replaced, the third
    answers all the while."""
    server = stocked(workers=3, settings=HURRIED)
    hang(server, stock.key, [("guilty", SPIN), ("slow", SLEEP)])


@pytest.mark.long
def test_every_way_to_hang(stocked: Stocked, stock: Stock) -> None:
    """K5: SIGSTOP, a loop that never ends, a library that keeps the interpreter's lock, a run that lasts too long."""
    server = stocked(workers=5, settings=HURRIED)
    hang(server, stock.key, [("guilty", STOP), ("guilty", SPIN), ("guilty", GIL), ("slow", SLEEP)])


def test_a_loop_that_stands_still_for_three_seconds_loses_nothing(stocked: Stocked, stock: Stock) -> None:
    """K11: the loop is blocked for 3 s: liveness on that worker answers late, and right; nobody is cut off, no worker
    is replaced, and what was asked meanwhile is answered and logged."""
    server, key = stocked(workers=1), stock.key
    (pid,) = server.worker_pids()
    blocked, waiting, live = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(3))
    send(blocked, key, "guilty", BLOCK)
    begun = time.monotonic()
    live.request("GET", "/v2/health/live")
    waiting.request("POST", "/v2/models/innocent/infer", json.dumps(WORDS), {"x-api-key": key})
    assert live.getresponse().status == 200
    stood_s = time.monotonic() - begun
    assert stood_s > 2.0, "liveness answered while the loop stood still"
    assert waiting.getresponse().status == 200
    assert blocked.getresponse().status == 200
    assert server.worker_pids() == [pid]
    until(lambda: server.count(status="2") == 2, what="both in the log")
    for connection in (blocked, waiting, live):
        connection.close()
    server.stop()


def test_a_version_that_keeps_killing_is_taken_out(stocked: Stocked, stock: Stock) -> None:
    """K6: five workers die in the runs of one version within a minute: it is marked unhealthy and says so wherever one
    asks (503 model_unhealthy, model readiness, the list of models, the log); the server stays ready, the others are
    answered by the same workers on; a restart keeps the mark; revived, it answers again."""
    server, key = stocked(workers=2), stock.key

    def asked(value: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        try:
            send(connection, key, "guilty", value)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read()).get("code", "")
        except (http.client.HTTPException, OSError):
            return 0, ""
        finally:
            connection.close()

    deaths = 0
    while asked(EXIT) == (0, ""):
        deaths += 1
        assert deaths <= 5, "it goes on killing"
        until(lambda: server.ask("GET", "/v2/health/ready", key=None, fresh=True).status == 200, 20, "ready again")
        until(lambda: len(server.worker_pids()) == 2, 20, "both workers again")
    assert deaths == 5
    until(lambda: asked(1.0) == (503, "model_unhealthy"), what="the refusal")
    living = server.worker_pids()
    refusal = server.ask("GET", "/v2/models/guilty/ready", key=key)
    assert (refusal.status, refusal.json["code"], refusal.json["ready"]) == (503, "model_unhealthy", False)
    assert server.ask("GET", "/v2/models/innocent/ready", key=key).status == 200
    assert server.ask("GET", "/v2/health/ready", key=None).status == 200
    listed = {model["name"]: model["unhealthy"] for model in server.ask("GET", "/v1/models").json["models"]}
    assert listed == {"cancer": [], "guilty": ["1"], "innocent": [], "slow": []}
    (event,) = server.events("model.unhealthy")
    assert (event["model"], event["version"]) == ("guilty", "1")
    written = until(lambda: server.ask("GET", "/v1/audit?action=version:unhealthy").json["events"], what="the audit")
    assert [(one["subject"], one["after"]) for one in written] == [("version:guilty/1", {"deaths": 5})]
    assert all(server.ask("POST", "/v2/models/innocent/infer", WORDS, key=key).status == 200 for _ in range(20))
    assert server.worker_pids() == living
    server.stop()
    server = stocked(workers=1)
    assert asked(1.0) == (503, "model_unhealthy")
    assert server.ask("POST", "/v1/models/guilty/versions/1/revive").json["revived"] is True
    until(lambda: asked(1.0)[0] == 200, what="the revived version")
    assert server.ask("POST", "/v1/models/guilty/versions/1/revive").json["revived"] is False
    server.stop()
