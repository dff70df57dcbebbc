"""kill -9 around the write of a prediction with an Idempotency-Key: its retry finds one answer and one record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trained
from misdeed import AFTER_WRITE, BEFORE_WRITE
from server import Reply, RunningServer, until
from urllib3.exceptions import HTTPError

pytestmark = pytest.mark.usefixtures("misdeeds")

PATH = "/v2/models/divide/infer"
BODY = {"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [6]},
                   {"name": "b", "shape": [1, 1], "datatype": "FP32", "data": [3]}]}  # fmt: skip


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def server(request: pytest.FixtureRequest, tmp_path: Path, misdeeds: None) -> Iterator[RunningServer]:
    """The model is published; ended at the end."""
    made = RunningServer(tmp_path / "data", workers=request.param).start()
    try:
        assert made.publish("divide", trained.divide()).status == 201
        yield made
        made.stop()
    finally:
        made.end()


def retried(server: RunningServer, key: str) -> Reply:
    """The first answer that is one; until then the key is in use or nobody listens."""

    def ask() -> Reply | None:
        try:
            reply = server.ask("POST", PATH, BODY, headers={"idempotency-key": key}, fresh=True)
        except HTTPError:
            return None
        assert reply.status in (200, 404, 409, 503), reply.body
        return reply if reply.status == 200 else None

    found = until(ask, 20, "an answer")
    assert isinstance(found, Reply)
    return found


@pytest.mark.parametrize("mark", [BEFORE_WRITE, AFTER_WRITE], ids=["before the write", "after the write"])
def test_a_retry_after_a_kill_finds_one_record(server: RunningServer, mark: bytes) -> None:
    """Killed after the write and before the answer: the retry gets the logged answer. Killed before the write: it
    runs. Both ways each of three keys has one record in the end, and one answer."""
    answers = []
    for number in range(3):
        key = f"order-{number}"
        marked = {"idempotency-key": key, "x-request-id": f"{mark.decode()}-{number}"}
        with pytest.raises(HTTPError):
            server.ask("POST", PATH, BODY, headers=marked, fresh=True)
        answers.append(retried(server, key))
        assert ("idempotent-replayed" in answers[-1].headers) is (mark is AFTER_WRITE)
    until(lambda: server.count() == 3, 20, "the drain")
    for number, first in enumerate(answers):
        again = retried(server, f"order-{number}")
        assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")
        assert again.headers["x-prediction-id"] == first.headers["x-prediction-id"]
        assert server.ask("GET", f"/v1/predictions/{first.headers['x-prediction-id']}").json["status"] == 200
    assert server.count() == 3
