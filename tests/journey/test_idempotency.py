"""A retry with the same Idempotency-Key runs nothing twice: over two workers, a kill and the drain."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trained
from server import Reply, RunningServer, until

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
    refused = server.ask("POST", path, changed, headers=named)
    assert (refused.status, refused.json["code"]) == (422, "idempotency_mismatch")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.pool.clear()
    same()
    until(lambda: server.count() == 1, 20)
    same()
    assert server.count() == 1


def test_a_full_index_forgets_the_oldest_and_says_so(serve: Callable[..., RunningServer]) -> None:
    """Past journal.max_kept_bytes the oldest keys are free before their day is over, the latest still hold, and the
    log has `journal.kept_full` with how many went; no record is lost."""
    server = serve(settings={"journal.max_kept_bytes": str(256 * 1024)})
    assert server.publish("divide", trained.divide()).status == 201
    rows = {"a": list(range(1, 501)), "b": [7] * 500}
    body = {"inputs": [{"name": n, "shape": [500, 1], "datatype": "FP32", "data": v} for n, v in rows.items()]}

    def ask(number: int) -> Reply:
        return server.ask("POST", "/v2/models/divide/infer", body, headers={"idempotency-key": f"order-{number}"})

    for number in range(60):
        assert ask(number).status == 200
    full = until(lambda: server.events("journal.kept_full"), 20, "journal.kept_full")
    assert full[0]["forgotten"] > 0
    assert ask(59).headers.get("idempotent-replayed") == "true"
    assert ask(0).headers.get("idempotent-replayed") is None
    until(lambda: server.count() == 61, 20, "the drain")
