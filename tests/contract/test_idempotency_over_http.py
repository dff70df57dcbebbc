"""409 while the first request runs, 422 for another request under its key: on the native way and its twin."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from http_worker import HttpWorker
from raw_http import Caller, Reply, request

from modelyard.testing import StubModel, servable

NATIVE, TWIN = "/v2/models/tree/infer", "/v2/models/tr%65e/infer"


def infer(value: int) -> str:
    return f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":[{value},1]}}]}}'


class Slow:
    """A worker whose model waits for `go`; `running` says that a run has begun."""

    def __init__(self) -> None:
        self.running, self.go = threading.Event(), threading.Event()
        model = servable(StubModel(before_run=lambda _: (self.running.set(), self.go.wait(10))), in_loop=False)
        self.worker = HttpWorker(models=(model,)).start()

    def send(self, target: str, value: int, key: str, *more: str) -> Caller:
        caller = Caller(self.worker.port)
        headers = (f"idempotency-key: {key}", *more)
        caller.send(request(target, infer(value), key=self.worker.key, headers=headers))
        return caller

    def ask(self, target: str, value: int, key: str, *more: str) -> Reply:
        return self.send(target, value, key, *more).reply()


@pytest.fixture
def slow() -> Iterator[Slow]:
    started = Slow()
    yield started
    started.go.set()
    Caller.close_all()
    started.worker.stop()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_key_in_use_is_409_then_the_answer(slow: Slow, target: str) -> None:
    """While the first runs its retry is told to come again, with Retry-After; then it gets the same answer. One run,
    one record."""
    first = slow.send(target, 1, "order-1")
    assert slow.running.wait(10)
    early = slow.ask(target, 1, "order-1")
    assert (early.status, early.json["code"]) == (409, "idempotency_in_use")
    assert int(early.headers["retry-after"]) >= 1
    slow.go.set()
    answered = first.reply()
    again = slow.ask(target, 1, "order-1")
    assert (answered.status, again.status, again.body) == (200, 200, answered.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert slow.worker.journal.records == 1


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_another_request_under_the_key_is_422(slow: Slow, target: str) -> None:
    """Another body is refused once the first is answered, and nothing runs for it; the first answer stays."""
    slow.go.set()
    answered = slow.ask(target, 1, "order-2")
    other = slow.ask(target, 2, "order-2")
    assert (other.status, other.json["code"], other.json["detail"]["field"]) == (
        422, "idempotency_mismatch", "idempotency-key",
    )  # fmt: skip
    assert slow.ask(target, 1, "order-2").body == answered.body
    assert slow.worker.journal.records == 1


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_another_subject_is_another_request(slow: Slow, target: str) -> None:
    """The same body about somebody else, by the header, is no retry: the first answer is not theirs."""
    slow.go.set()
    first = slow.ask(target, 1, "order-3", "x-modelyard-subject: patient-1")
    other = slow.ask(target, 1, "order-3", "x-modelyard-subject: patient-2")
    again = slow.ask(target, 1, "order-3", "x-modelyard-subject: patient-1")
    assert (first.status, other.status, again.body) == (200, 422, first.body)
