"""One connection, one order: what must hold on a connection, on the native routes and among ASGI ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from http_worker import HttpWorker
from raw_http import Caller, request, until

from modelyard.core.settings import HttpSettings, Settings
from modelyard.testing import StubModel, servable

NATIVE = "/v2/models/tree/infer"
TWIN = "/v2/models/tr%65e/infer"


def infer(value: float, shape: str = "[1,2]") -> str:
    return '{"inputs":[{"name":"x","shape":%s,"datatype":"FP32","data":[%s,%s]}]}' % (shape, value, value)


@pytest.fixture(scope="module")
def worker() -> Iterator[HttpWorker]:
    started = HttpWorker().start()
    yield started
    started.stop()


@pytest.fixture
def caller(worker: HttpWorker) -> Iterator[Caller]:
    opened = Caller(worker.port)
    yield opened
    opened.close()


@pytest.fixture
def small() -> Iterator[HttpWorker]:
    """A worker with small bounds and short deadlines."""
    http = HttpSettings(
        max_body_bytes=4096,
        max_inflight_bytes=6000,
        max_url_bytes=256,
        max_header_bytes=1024,
        max_headers=16,
        max_chunks=64,
        max_connections=8,
        header_timeout_s=0.4,
        body_timeout_s=0.6,
        keep_alive_s=0.8,
        request_timeout_s=0.5,
    )
    started = HttpWorker(Settings(http=http)).start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    yield
    Caller.close_all()


def the_number(reply: object) -> float:
    return float(reply.json["outputs"][0]["data"][0])  # type: ignore[attr-defined]


MESSAGES = {
    "native": lambda key, n: request(NATIVE, infer(n), key=key),
    "twin": lambda key, n: request(TWIN, infer(n), key=key),
    "asgi": lambda key, n: request(f"/v1/thing/{n}", key=key, method="GET", length=-1),
    "chunked": lambda key, n: (
        request(NATIVE, key=key, headers=["transfer-encoding: chunked"], length=-1)
        + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (infer(n).encode()[:20], infer(n).encode()[20:]))
        + b"0\r\n\r\n"
    ),
    "wrong": lambda key, n: request(NATIVE, infer(n, "[1,3]"), key=key),
    "nokey": lambda key, n: request(NATIVE, infer(n)),
}


def check(kind: str, n: int, reply: object) -> None:
    """The reply belongs to the n-th message."""
    status = reply.status  # type: ignore[attr-defined]
    if kind in ("native", "twin", "chunked"):
        assert status == 200, reply
        assert the_number(reply) == 2.0 * n
    elif kind == "asgi":
        assert reply.json == {"path": f"/v1/thing/{n}"}  # type: ignore[attr-defined]
    elif kind == "wrong":
        assert status == 400
    else:
        assert status == 401


def test_interleavings_split_at_every_byte_are_answered_in_order(worker: HttpWorker) -> None:
    """Native, ASGI and refused requests in one segment, split at each byte: one answer each, in order, for its own
    body."""
    kinds = ["native", "asgi", "wrong", "twin", "native"]
    segment = b"".join(MESSAGES[kind](worker.key, n) for n, kind in enumerate(kinds, 1))
    for split in range(1, len(segment)):
        caller = Caller(worker.port)
        caller.send(segment[:split])
        caller.send(segment[split:])
        for n, kind in enumerate(kinds, 1):
            check(kind, n, caller.reply())
        caller.close()


@pytest.mark.parametrize("seed", range(40))
def test_random_interleavings(worker: HttpWorker, seed: int) -> None:
    """Random messages in random segments: answers in request order, each for its own body."""
    chance = random.Random(seed)
    kinds = [chance.choice(list(MESSAGES)) for _ in range(12)]
    stream = b"".join(MESSAGES[kind](worker.key, n) for n, kind in enumerate(kinds, 1))
    caller = Caller(worker.port)
    at = 0
    while at < len(stream):
        step = chance.choice((1, 7, 60, 400, 4000))
        caller.send(stream[at : at + step])
        at += step
    for n, kind in enumerate(kinds, 1):
        check(kind, n, caller.reply())
    caller.close()


def test_a_parser_error_waits_behind_owed_answers(caller: Caller, worker: HttpWorker) -> None:
    """What came before the malformed bytes is answered first, then 400 in our form, then the connection ends."""
    caller.send(request(NATIVE, infer(1), key=worker.key) * 3 + b"NOT HTTP\r\n\r\n")
    assert [caller.reply().status for _ in range(3)] == [200, 200, 200]
    refusal = caller.reply()
    assert (refusal.status, refusal.json["code"]) == (400, "http_invalid")
    assert refusal.headers["connection"] == "close"
    assert caller.at_end()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_broken_chunk_is_refused_in_our_form(caller: Caller, worker: HttpWorker, target: str) -> None:
    """A body whose framing breaks gets 400 http_invalid and the connection ends."""
    caller.send(request(target, key=worker.key, headers=["transfer-encoding: chunked"], length=-1) + b"zz\r\n")
    refusal = caller.reply()
    assert (refusal.status, refusal.json["code"]) == (400, "http_invalid")
    assert caller.at_end()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_http_1_0_and_connection_close_end_the_connection(worker: HttpWorker, target: str) -> None:
    """HTTP/1.0 and `Connection: close` are answered, said and closed; what follows is not parsed."""
    for extra in ({"version": "1.0"}, {"headers": ["connection: close"]}):
        caller = Caller(worker.port)
        before = worker.journal.records
        caller.send(request(target, infer(1), key=worker.key, **extra) + request(target, infer(2), key=worker.key))
        reply = caller.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert caller.at_end()
        assert worker.journal.records == before + 1


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_expect_continue(caller: Caller, worker: HttpWorker, target: str) -> None:
    """`Expect: 100-continue`: 100 only after the key was checked, then the answer."""
    caller.send(request(target, key=worker.key, headers=["expect: 100-continue"], length=len(infer(4))))
    assert caller.reply().status == 100
    caller.send(infer(4).encode())
    assert the_number(caller.reply()) == 8.0


def test_expect_continue_is_refused_without_reading(caller: Caller, worker: HttpWorker) -> None:
    """A bad key or too long a body is refused instead of 100."""
    caller.send(request(NATIVE, key="mdy_wrong", headers=["expect: 100-continue"], length=10))
    assert caller.reply().status == 401
    other = Caller(worker.port)
    other.send(request(NATIVE, key=worker.key, headers=["expect: 100-continue"], length=1 << 40))
    assert other.reply().status == 413
    other.close()


def test_expect_continue_waits_for_the_head_of_the_queue(caller: Caller, worker: HttpWorker) -> None:
    """100 is not sent before the answers that are owed."""
    caller.send(
        request(NATIVE, infer(1), key=worker.key)
        + request(NATIVE, key=worker.key, headers=["expect: 100-continue"], length=len(infer(2)))
    )
    assert caller.reply().status == 200
    assert caller.reply().status == 100
    caller.send(infer(2).encode())
    assert the_number(caller.reply()) == 4.0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_other_verbs_on_a_predict_route(caller: Caller, worker: HttpWorker, method: str) -> None:
    """405 with Allow, and the connection stays in step."""
    caller.send(request(NATIVE, key=worker.key, method=method, length=-1))
    reply = caller.reply(head=method == "HEAD")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    caller.send(request(NATIVE, infer(3), key=worker.key))
    assert the_number(caller.reply()) == 6.0


@pytest.mark.parametrize("target", ["http://test/v2/models/tree/infer", TWIN, NATIVE + "?a=b"])
def test_unusual_targets_go_to_the_twin(caller: Caller, worker: HttpWorker, target: str) -> None:
    """Absolute form, percent-encoding and a query are answered as the plain form is."""
    caller.send(request(target, infer(3), key=worker.key))
    assert the_number(caller.reply()) == 6.0


def test_an_upgrade_is_ignored(caller: Caller, worker: HttpWorker) -> None:
    """`Upgrade: h2c` with a body, as Java sends it: the body is read, the request answered, the connection goes on."""
    offer = ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAB"]
    caller.send(request(NATIVE, infer(5), key=worker.key, headers=offer) + request(NATIVE, infer(6), key=worker.key))
    assert [the_number(caller.reply()) for _ in range(2)] == [10.0, 12.0]
    caller.send(request(NATIVE, infer(7), key=worker.key, headers=offer)[:-10])
    caller.send(infer(7)[-10:].encode())
    assert the_number(caller.reply()) == 14.0
    caller.send(request("example.com:443", key=worker.key, method="CONNECT", length=-1))
    assert caller.reply().status == 400


def test_a_websocket_handshake_gets_an_ordinary_answer(caller: Caller, worker: HttpWorker) -> None:
    """Websockets are off."""
    caller.send(
        request(
            "/v1/thing/1",
            key=worker.key,
            method="GET",
            length=-1,
            headers=["connection: upgrade", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13"],
        )
    )
    assert caller.reply().status == 200


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_two_differing_keys(caller: Caller, worker: HttpWorker, target: str) -> None:
    """Two keys that differ are refused, whichever is good; the same key twice is one key."""
    caller.send(request(target, infer(1), key=worker.key, headers=["authorization: Bearer other"]))
    assert caller.reply().json["code"] == "keys_differ"
    caller.send(request(target, infer(1), key=worker.key, headers=[f"authorization: Bearer {worker.key}"]))
    assert caller.reply().status == 200
    caller.send(request(target, infer(1), headers=[f"Authorization: bearer {worker.key}"]))
    assert caller.reply().status == 200


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_half_close_is_answered_then_closed(caller: Caller, worker: HttpWorker, target: str) -> None:
    """A caller that closes its sending side gets everything it is owed."""
    caller.send(request(target, infer(1), key=worker.key) * 3)
    caller.half_close()
    assert [caller.reply().status for _ in range(3)] == [200, 200, 200]
    assert caller.at_end()


def test_half_close_inside_a_body_just_ends(caller: Caller, worker: HttpWorker) -> None:
    """An unfinished request is owed nothing; what came before it is answered."""
    caller.send(request(NATIVE, infer(1), key=worker.key) + request(NATIVE, infer(2), key=worker.key)[:-5])
    caller.half_close()
    assert caller.reply().status == 200
    assert caller.at_end()


def test_more_than_sixteen_waiting_closes(worker: HttpWorker) -> None:
    """Of forty requests in one segment those accepted are answered in order, then the connection ends."""
    caller = Caller(worker.port)
    caller.send(b"".join(request(TWIN, infer(n), key=worker.key) for n in range(1, 41)))
    got = []
    while not (got and got[-1].headers.get("connection") == "close"):
        got.append(caller.reply())
    assert [the_number(reply) for reply in got] == [2.0 * n for n in range(1, 18)]
    assert caller.at_end()


def test_a_caller_that_never_reads_is_bounded(small: HttpWorker) -> None:
    """Answers that nobody reads do not pile up: reading stops, then the connection is cut."""
    caller = Caller(small.port)
    caller.socket.setblocking(False)
    body = '{"items":[%s]}' % ",".join(['{"a":1,"b":2}'] * 100)
    message = request("/v1/models/tree/predictions", body, key=small.key)
    sent = 0
    try:
        while sent < 400 * 1024 * 1024:
            sent += caller.socket.send(message * 8)
    except (BlockingIOError, ConnectionError):
        pass
    held = small.on_loop(
        lambda: max((c.transport.get_write_buffer_size() for c in small.shared.connections), default=0)
    )
    assert held <= small.settings.http.write_buffer_bytes + 100_000
    caller.close()


def test_bounds_of_a_head(small: HttpWorker) -> None:
    """URL, header count, header bytes: each refused with its code, whole or in pieces, and the connection ends."""
    cases = [
        (request(NATIVE + "?" + "a" * 300, infer(1), key=small.key), 414, "url_too_long"),
        (request(NATIVE, infer(1), key=small.key, headers=[f"x-{n}: 1" for n in range(20)]), 431, "headers_too_large"),
        (request(NATIVE, infer(1), key=small.key, headers=["x-a: " + "b" * 1500]), 431, "headers_too_large"),
        (b"POST " + NATIVE.encode() + b" HTTP/1.1\r\nx-a: " + b"b" * 5000, 431, "headers_too_large"),
    ]
    for message, status, code in cases:
        for step in (len(message), 100):
            caller = Caller(small.port)
            for at in range(0, len(message), step):
                try:
                    caller.send(message[at : at + step])
                except ConnectionError:
                    break
            reply = caller.reply()
            assert (reply.status, reply.json["code"]) == (status, code)
            assert "x-request-id" in reply.headers
            assert caller.at_end()
            caller.close()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_bounds_of_a_body(small: HttpWorker, target: str) -> None:
    """A body over the bound is refused by its length, or when it grows over it; too many chunks too."""
    chunks = b"".join(b"1\r\n \r\n" for _ in range(100))
    head = request(target, key=small.key, headers=["transfer-encoding: chunked"], length=-1)
    cases = [
        (request(target, b" " * 5000, key=small.key), 413, "body_too_large"),
        (head + b"1f40\r\n" + b" " * 8000 + b"\r\n0\r\n\r\n", 413, "body_too_large"),
        (head + chunks + b"0\r\n\r\n", 413, "too_many_chunks"),
    ]
    for message, status, code in cases:
        caller = Caller(small.port)
        caller.send(message)
        reply = caller.reply()
        assert (reply.status, reply.json["code"]) == (status, code)
        assert caller.at_end()
        caller.close()


def test_inflight_bytes_are_bounded_and_given_back(small: HttpWorker) -> None:
    """Bodies in memory are bounded together; leaving callers give their share back."""
    first = Caller(small.port)
    first.send(request(NATIVE, b" " * 3500, key=small.key, length=3600))
    until(lambda: small.shared.inflight_bytes == 3500)
    second = Caller(small.port)
    second.send(request(NATIVE, b" " * 3500, key=small.key, length=3600))
    reply = second.reply()
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "inflight_bytes_exceeded", "1")
    first.close()
    second.close()
    until(lambda: small.shared.inflight_bytes == 0)


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_slow_callers_meet_a_deadline(small: HttpWorker, target: str) -> None:
    """A head or a body that does not arrive in time gets 408, however steadily its bytes drip."""
    for part in (f"POST {target} HT".encode(), request(target, b"{", key=small.key, length=100)):
        caller = Caller(small.port)
        caller.send(part)
        reply = caller.reply()
        assert (reply.status, reply.json["code"]) == (408, "receive_timeout")
        assert caller.at_end()
        caller.close()


def test_idle_connections_are_closed(small: HttpWorker) -> None:
    """A connection that is kept alive and not used ends after http.keep_alive_s; one never used too."""
    used, unused = Caller(small.port), Caller(small.port)
    used.send(request(NATIVE, infer(1), key=small.key))
    assert used.reply().status == 200
    assert used.at_end()
    assert unused.at_end()


def test_too_many_connections_are_refused(small: HttpWorker) -> None:
    """Beyond http.max_connections a connection is told 503 and closed; others are not hurt."""
    callers = [Caller(small.port) for _ in range(8)]
    callers[0].send(request(NATIVE, infer(1), key=small.key))
    assert callers[0].reply().status == 200
    surplus = Caller(small.port)
    assert surplus.reply().status == 503
    for caller in (*callers, surplus):
        caller.close()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_stuck_model_is_answered_for_in_time(target: str) -> None:
    """A run longer than http.request_timeout_s: the caller gets 503, the permit comes back, the next is served."""
    import threading

    release = threading.Event()
    stuck = StubModel(before_run=lambda inputs: release.wait(5) if inputs["x"][0, 0] == 13 else None)
    worker = HttpWorker(Settings(http=HttpSettings(request_timeout_s=0.3)), [servable(stuck, in_loop=False)]).start()
    caller = Caller(worker.port)
    caller.send(request(target, infer(13), key=worker.key))
    reply = caller.reply()
    assert (reply.status, reply.json["code"]) == (503, "request_timeout")
    assert "x-prediction-id" in reply.headers
    release.set()
    caller.send(request(target, infer(2), key=worker.key))
    assert the_number(caller.reply()) == 4.0
    assert worker.journal.records == 2
    caller.close()
    worker.stop()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_bad_request_poisons_nothing(caller: Caller, worker: HttpWorker, target: str) -> None:
    """A bad body, then a good one, in one segment and in two: the good one is answered."""
    for bad in ('{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,', "[" * 250_000, "\xff", "{}"):
        caller.send(request(target, bad.encode("latin-1"), key=worker.key) + request(target, infer(2), key=worker.key))
        assert caller.reply().status == 400
        assert the_number(caller.reply()) == 4.0
        caller.send(request(target, infer(3), key=worker.key))
        assert the_number(caller.reply()) == 6.0


def test_a_full_disk_refuses_before_answering(caller: Caller, worker: HttpWorker) -> None:
    """A turn that cannot be written is answered 503 with Retry-After, and nothing is kept; then it heals."""
    before = worker.journal.records
    worker.journal.full = True
    caller.send(request(NATIVE, infer(1), key=worker.key))
    reply = caller.reply()
    worker.journal.full = False
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "journal_unavailable", "1")
    assert worker.journal.records == before
    caller.send(request(NATIVE, infer(1), key=worker.key))
    assert caller.reply().status == 200


def test_pipelined_answers_carry_their_own_ids(caller: Caller, worker: HttpWorker) -> None:
    """Each answer names its own prediction, and echoes its own request id if that is a good one."""
    caller.send(
        request(NATIVE, infer(1), key=worker.key, headers=["x-request-id: one"])
        + request(NATIVE, infer(2), key=worker.key, headers=["x-request-id: two words"])
    )
    first, second = caller.reply(), caller.reply()
    assert first.headers["x-request-id"] == "one"
    assert second.headers["x-request-id"] == second.headers["x-prediction-id"]
    assert json.loads(first.body)["id"] == first.headers["x-prediction-id"] != second.headers["x-prediction-id"]
