"""A head that was read before is looked up, not parsed: the caller cannot tell (API-6, hot path contract)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_worker import HttpWorker
from raw_http import Caller, request

from modelyard.core.settings import HttpSettings, Settings
from modelyard.http.connection.heads import MOST_HEADS

TARGET = "/v2/models/tree/infer"


def infer(number: float) -> str:
    return f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":[{number},1]}}]}}'


@pytest.fixture(scope="module")
def worker() -> Iterator[HttpWorker]:
    started = HttpWorker().start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _fresh(worker: HttpWorker) -> Iterator[None]:
    worker.on_loop(worker.shared.heads.find.clear)
    yield
    Caller.close_all()


def known(worker: HttpWorker) -> int:
    return len(worker.shared.heads.find)


def plain(headers: dict[str, str]) -> dict[str, str]:
    own = ("date", "x-request-id", "x-prediction-id", "ratelimit-remaining", "ratelimit-reset")
    return {name: value for name, value in headers.items() if name not in own}


def test_the_second_answer_is_like_the_first(worker: HttpWorker) -> None:
    """Parsed, then looked up: the same status, fields and outputs, each for its own body, on any connection."""
    one, other = Caller(worker.port), Caller(worker.port)
    replies = []
    for caller, number in ((one, 1), (one, 2), (other, 3), (one, 4)):
        caller.send(request(TARGET, infer(number), key=worker.key))
        replies.append(caller.reply())
        assert known(worker) == 1
    assert [reply.json["outputs"][0]["data"][0] for reply in replies] == [2, 4, 6, 8]
    assert len({str(plain(reply.headers)) for reply in replies}) == 1
    assert len({reply.headers["x-prediction-id"] for reply in replies}) == 4


def test_each_length_is_a_head_of_its_own(worker: HttpWorker) -> None:
    """Another Content-Length is another head; a body of the wrong length is never taken for a whole one."""
    caller = Caller(worker.port)
    for number in (1, 10, 100, 1, 10, 100):
        caller.send(request(TARGET, infer(number), key=worker.key))
        assert caller.reply().json["outputs"][0]["data"][0] == 2 * number
    assert known(worker) == 3


@pytest.mark.parametrize("cut", [1, 30, 120, -1, -20])
def test_a_known_head_in_two_segments(worker: HttpWorker, cut: int) -> None:
    """Cut anywhere, the parser reads it, and the answer is the same."""
    caller = Caller(worker.port)
    whole = request(TARGET, infer(1), key=worker.key)
    caller.send(whole)
    caller.reply()
    caller.send(whole[:cut])
    caller.send(whole[cut:])
    assert caller.reply().json["outputs"][0]["data"][0] == 2


def test_requests_that_share_a_segment(worker: HttpWorker) -> None:
    """A known request with another one behind it is parsed: both are answered, in order."""
    caller = Caller(worker.port)
    caller.send(request(TARGET, infer(1), key=worker.key))
    caller.reply()
    caller.send(request(TARGET, infer(2), key=worker.key) + request(TARGET, infer(3), key=worker.key))
    assert [caller.reply().json["outputs"][0]["data"][0] for _ in range(2)] == [4, 6]
    caller.send(request(TARGET, infer(4), key=worker.key))
    caller.send(request(TARGET, infer(5), key=worker.key))
    assert [caller.reply().json["outputs"][0]["data"][0] for _ in range(2)] == [8, 10]


@pytest.mark.parametrize(
    "headers",
    [
        ("x-request-id: mine",),
        ("connection: close",),
        ("expect: 100-continue",),
        ("transfer-encoding: chunked",),
        ("authorization: Bearer another",),
    ],
)
def test_heads_of_one_request_only(worker: HttpWorker, headers: tuple[str, ...]) -> None:
    """What belongs to one request, ends the connection, or is refused for its head is parsed each time."""
    caller = Caller(worker.port)
    body = infer(1)
    if "chunked" in headers[0]:
        sent = request(TARGET, f"{len(body):x}\r\n{body}\r\n0\r\n\r\n", key=worker.key, headers=headers, length=-1)
    else:
        sent = request(TARGET, body, key=worker.key, headers=headers)
    caller.send(sent)
    caller.reply()
    assert known(worker) == 0


def test_a_key_that_is_revoked_is_refused_at_once(worker: HttpWorker) -> None:
    """A known head says nothing about its key: the table of this moment does (P7)."""
    made = worker.issuer.create("leaving")
    worker.refresh_keys()
    caller = Caller(worker.port)
    whole = request(TARGET, infer(1), key=made.text.get_secret_value())
    for _ in range(3):
        caller.send(whole)
        assert caller.reply().status == 200
    worker.issuer.revoke(made.key.id)
    worker.refresh_keys()
    for _ in range(2):
        caller.send(whole)
        reply = caller.reply()
        assert (reply.status, reply.json["code"]) == (401, "key_revoked")


def test_a_wrong_key_stays_wrong(worker: HttpWorker) -> None:
    """Also when its head is known."""
    caller = Caller(worker.port)
    for _ in range(3):
        caller.send(request(TARGET, infer(1), key=worker.key[:-1] + "x"))
        assert caller.reply().status == 401


def test_no_more_than_so_many(worker: HttpWorker) -> None:
    """A caller that makes up heads empties the memory and fills nothing (P4)."""
    caller = Caller(worker.port)
    for number in range(MOST_HEADS + 10):
        caller.send(request(TARGET, infer(1), key=worker.key, headers=(f"x-made-up: {number}",)))
        caller.reply()
        assert known(worker) <= MOST_HEADS
    caller.send(request(TARGET, infer(1), key=worker.key, headers=("x-long: " + "a" * 2100,)))
    assert caller.reply().status == 200
    assert max(len(head) for head in worker.shared.heads.find) <= 2100


def test_the_bound_of_bodies_holds() -> None:
    """A known head does not pass `http.max_inflight_bytes`: it is refused as a parsed one is."""
    worker = HttpWorker(Settings(http=HttpSettings(max_inflight_bytes=1024))).start()
    try:
        caller = Caller(worker.port)
        whole = request(TARGET, infer(1), key=worker.key)
        caller.send(whole)
        assert caller.reply().status == 200
        worker.on_loop(lambda: setattr(worker.shared, "inflight_bytes", 1020))
        caller.send(whole)
        reply = caller.reply()
        assert (reply.status, reply.json["code"]) == (503, "inflight_bytes_exceeded")
    finally:
        worker.stop()
