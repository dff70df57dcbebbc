"""A retry with the same Idempotency-Key runs nothing twice: over two workers, a kill and the drain."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trained
from server import RunningServer, until

BODY = {"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [6]},
                   {"name": "b", "shape": [1, 1], "datatype": "FP32", "data": [3]}]}  # fmt: skip


def test_a_retry_gets_the_logged_answer(serve: Callable[..., RunningServer]) -> None:
    """Twenty retries on new connections, one after a worker died, one after the drain: one answer, one record."""
    server = serve(workers=2)
    assert server.publish("divide", trained.divide()).status == 201
    path, named = "/v2/models/divide/infer", {"idempotency-key": "order-1"}
    first = server.ask("POST", path, BODY, headers=named, fresh=True)
    assert (first.status, "idempotent-replayed" in first.headers) == (200, False), first.body

    def same() -> None:
        again = server.ask("POST", path, BODY, headers=named, fresh=True)
        assert (again.status, again.body, again.headers.get("idempotent-replayed")) == (200, first.body, "true")
        assert again.headers["x-prediction-id"] == first.headers["x-prediction-id"]

    for _ in range(20):
        same()
    changed = {"inputs": [BODY["inputs"][0], {**BODY["inputs"][1], "data": [2]}]}
    assert server.ask("POST", path, changed, headers=named).json["code"] == "idempotency_mismatch"
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.pool.clear()
    same()
    until(lambda: server.count() == 1, 20)
    same()
    assert server.count() == 1
