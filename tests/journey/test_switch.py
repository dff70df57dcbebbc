"""Nothing is lost in a switch of versions or of worker processes (D1, P2)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trained
from server import RunningServer, until

from load import Answered, Load

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from figures import record

SWITCHES = 10
CLIENTS = 4
BETWEEN = 20
"""Answers that are waited for between two switches."""


def probabilities(answer: Answered) -> np.ndarray:
    return np.array(next(o["data"] for o in answer.body["outputs"] if o["name"] == "probabilities"), np.float32)


def assert_right(answers: list[Answered]) -> None:
    """Every answer is 200, and is what the version that it names says of its row, to the last digits: no answer of
    another caller, none of a version in between."""
    said = {"1": trained.cancer(1.0).probabilities, "2": trained.cancer(0.01).probabilities}
    for answer in answers:
        assert answer.status == 200, answer.body
        version = answer.headers["x-model-version"]
        assert answer.body["model_version"] == version
        assert np.allclose(probabilities(answer), said[version][answer.row], atol=1e-6)


def test_versions_switch_under_load(server: RunningServer) -> None:
    """D1: ten switches of all traffic between two versions while four clients send. No request fails, and no record
    names another version than its answer did. After the answer to a switch every new request gets the new version."""
    switch_under_load(server, "switching", SWITCHES)


@pytest.mark.long
def test_versions_switch_two_hundred_times(server: RunningServer) -> None:
    """D1: two hundred switches."""
    answered = switch_under_load(server, "long-switching", 200)
    record("D1 P2 switches, 200", switches=200, answered=answered, failed=0)


def switch_under_load(server: RunningServer, client: str, switches: int) -> int:
    key = server.create_key(client, rate="1000000/s")["key"]
    with Load(server, key, "/v2/models/cancer/infer", CLIENTS) as load:
        for number in range(switches):
            target = "2" if number % 2 == 0 else "1"
            assert server.set_traffic("cancer", **{f"v{target}": 100}).status == 200
            body = json.dumps(trained.infer_body(X=trained.cancer().rows[:1]))
            with server.every_worker() as connections:
                for connection in connections.values():
                    connection.request("POST", "/v2/models/cancer/infer", body, {"x-api-key": key})
                    reply = connection.getresponse()
                    reply.read()
                    assert (reply.status, reply.getheader("x-model-version")) == (200, target)
            seen = len(load.answers)
            until(lambda seen=seen: len(load.answers) >= seen + BETWEEN, 20, "the load")
    assert load.failures == []
    assert_right(load.answers)
    assert {answer.headers["x-model-version"] for answer in load.answers} == {"1", "2"}
    probes = switches * len(server.worker_pids())
    until(lambda: server.count(client=client) == len(load.answers) + probes, 40, "the log")
    for answer in load.answers[:: max(1, len(load.answers) // 50)]:
        logged = server.ask("GET", f"/v1/predictions/{answer.headers['x-prediction-id']}").json
        assert logged["version"] == answer.headers["x-model-version"]
    return len(load.answers)


def test_workers_are_replaced_under_load(serve: Callable[..., RunningServer]) -> None:
    """SIGUSR2 with two workers and four clients: both worker processes are others afterwards, no request failed, no
    worker was lost, and every answer is in the log once."""
    server = serve(workers=2, settings={"http.drain_delay_s": "0.5"})
    server.publish("cancer", trained.cancer(1.0).content, "1")
    key = server.create_key("steady", rate="1000000/s")["key"]
    old = set(server.worker_pids())
    with Load(server, key, "/v2/models/cancer/infer", CLIENTS) as load:
        until(lambda: len(load.answers) > BETWEEN, 20, "the load")
        server.signal(signal.SIGUSR2)
        until(lambda: server.events("server.reloaded"), 60, "the reload")
        until(lambda: len(server.worker_pids()) == 2, 20, "the last old worker's end")
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + BETWEEN, 20, "the load")
    assert old.isdisjoint(server.worker_pids())
    assert load.failures == []
    assert_right(load.answers)
    assert server.events("worker.lost") == []
    until(lambda: server.count(status="2xx") == len(load.answers), 40, "the log")
    assert server.count() == len(load.answers)
