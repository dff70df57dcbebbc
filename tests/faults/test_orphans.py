"""Processes that lost their parent, hang, or are told to end at an awkward moment (K9, K10, P4)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acknowledged import START_WITHIN_S, Server, alive, breast_cancer, until
from onnx import TensorProto, helper

ORPHANS_WITHIN_S = 5.0
STARTING_WITHIN_S = 20.0
"""A process that was still importing when its parent died looks at its parent after that."""
STALLED_WITHIN_S = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers, not started; nothing is left of them at the end."""
    made = Server(tmp_path)
    yield made
    made.end()
    until(lambda: not any(map(alive, made.family)), STARTING_WITHIN_S, "everything ends")


def family_of(server: Server) -> list[int]:
    """Every child of the server, noted for the end."""
    found = [*server.worker_pids(), *server.drain_pids()]
    server.family.extend(found)
    return found


def endless(seconds: float, least: float = 0.0) -> bytes:
    """y = x after about so many seconds of matrix products, if x is above 1000; else after `least` products: with
    none it is taken for a fast model and runs on the loop, with some in the executor."""
    number, whole, size = TensorProto.FLOAT, TensorProto.INT64, 500
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "weights"], ["next"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", whole, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", number, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", number, [size, size]),
        ],
    )
    square = np.full((size, size), 1.0 / size, np.float32)
    constants = [
        helper.make_tensor("weights", number, square.shape, square.tobytes(), raw=True),
        helper.make_tensor("above", number, [], [1000.0]),
        helper.make_tensor("many", number, [], [seconds * 2000]),
        helper.make_tensor("least", number, [], [least]),
        helper.make_tensor("nothing", number, [], [0.0]),
        helper.make_tensor("go", TensorProto.BOOL, [], [True]),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "above"], ["is_above"]),
        helper.make_node("Cast", ["is_above"], ["factor"], to=number),
        helper.make_node("Mul", ["factor", "many"], ["wanted"]),
        helper.make_node("Max", ["wanted", "least"], ["turns_f"]),
        helper.make_node("Cast", ["turns_f"], ["turns"], to=whole),
        helper.make_node("Loop", ["turns", "go", "weights"], ["product"], body=body),
        helper.make_node("ReduceMax", ["product"], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "nothing"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    shape = ["rows", 1]
    graph = helper.make_graph(
        nodes,
        "endless",
        [helper.make_tensor_value_info("x", number, shape)],
        [helper.make_tensor_value_info("y", number, shape)],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def ask(server: Server, key: str, value: float) -> Any:
    """One request; the connection, to read its answer from."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=40)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}]}
    connection.request("POST", "/v2/models/cancer/infer", json.dumps(body), {"x-api-key": key})
    return connection


def in_flight(server: Server) -> bool:
    """Whether a worker computes."""
    return any(cpu_share(pid) > 0.3 for pid in server.worker_pids())


def cpu_share(pid: int) -> float:
    """How much of 0.3 s a process computes."""

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(0.3)
    return (used() - before) / 0.3


def test_a_hanging_model_keeps_no_orphan(server: Server) -> None:
    """K10: the parent is killed while a model computes for minutes, on the very loop: workers and drain end within 5 s,
    and a new server starts on the folder and the same port."""
    key = server.prepare(endless(300))
    server.start()
    children = family_of(server)
    connection = ask(server, key, 2000.0)
    until(lambda: in_flight(server), START_WITHIN_S, "the model computes")
    server.kill()
    until(lambda: not any(map(alive, children)), ORPHANS_WITHIN_S, "the orphans end")
    connection.close()
    server.start()
    family_of(server)
    connection = ask(server, key, 1.0)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["outputs"][0]["data"]) == (200, [1.0])
    connection.close()
    assert server.stop() == 0


@pytest.mark.long
def test_a_hanging_model_does_not_hinder_a_stop(server: Server) -> None:
    """SIGTERM while a model computes for minutes in the executor: its caller gets 503 at 22 s, the exit status is 0,
    under 30 s."""
    key = server.prepare(endless(300, least=10.0))
    server.start()
    family_of(server)
    connection = ask(server, key, 2000.0)
    until(lambda: in_flight(server), START_WITHIN_S, "the model computes")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 30
    answer = connection.getresponse()
    assert answer.status == 503
    assert json.loads(answer.read())["code"] == "shutting_down"
    connection.close()


def test_a_parent_killed_while_its_children_start(server: Server) -> None:
    """The parent dies before its workers accept: they end by themselves, and the next start has nothing in its way."""
    server.prepare(breast_cancer().content)
    for after_s in (0.0, 0.4):
        children = begin(server)
        time.sleep(after_s)
        server.kill()
        until(lambda children=children: not any(map(alive, children)), STARTING_WITHIN_S, "the orphans end")
    server.start()
    family_of(server)
    assert server.stop() == 0


def test_a_stop_while_the_children_start(server: Server) -> None:
    """K9: SIGTERM before the workers accept: exit status 0, soon, and nobody is left."""
    server.prepare(breast_cancer().content)
    children = begin(server)
    assert server.stop() == 0
    assert not any(map(alive, children))


def begin(server: Server) -> list[int]:
    """Starts the server; its children, as soon as all exist."""
    server.begin()
    until(lambda: len(family_of(server)) == server.workers + 1, START_WITHIN_S, "the children exist")
    return family_of(server)


def test_a_hangup_ends_nobody_and_a_frozen_worker_is_replaced(server: Server) -> None:
    """SIGHUP, to the parent and to a worker: the same processes serve on. A worker whose loop stands still (SIGSTOP)
    gets a successor and is killed; the server is whole again, and stops in order."""
    server.prepare(breast_cancer().content)
    server.start()
    until(lambda: server.started() == server.workers, START_WITHIN_S, "both accept")
    until(server.drain_pids, START_WITHIN_S, "a drain runs")
    children = family_of(server)
    server.process.send_signal(signal.SIGHUP)
    os.kill(children[0], signal.SIGHUP)
    time.sleep(0.5)
    assert [*server.worker_pids(), *server.drain_pids()] == children
    os.kill(children[0], signal.SIGSTOP)
    until(lambda: not alive(children[0]), STALLED_WITHIN_S, "the frozen worker is killed")
    assert server.started() == server.workers + 1, "the successor accepted first"
    family_of(server)
    assert len(server.worker_pids()) == server.workers
    assert server.ready()
    assert server.stop() == 0
