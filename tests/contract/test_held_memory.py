"""What a connection may make the server hold: trailers of a chunked body, and bodies whose callers have left (P4)."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from http_worker import HttpWorker
from raw_http import Caller, request, until

from modelyard.core.settings import HttpSettings, Settings
from modelyard.testing import StubModel, servable

NATIVE, TWIN, OTHER = "/v2/models/tree/infer", "/v2/models/tr%65e/infer", "/v1/thing"
BODY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,1]}]}'
CHUNKED = "transfer-encoding: chunked"
READ_BYTES, MOST_READS = 256 * 1024, 16
"""What one read of the socket holds at most, and so many of them: far beyond the bound, however they are cut."""


@pytest.fixture
def worker() -> Iterator[HttpWorker]:
    """A worker with small bounds of a head."""
    http = HttpSettings(max_header_bytes=1024, max_url_bytes=256, max_headers=16)
    started = HttpWorker(Settings(http=http)).start()
    yield started
    Caller.close_all()
    started.stop()


@pytest.mark.parametrize("target", [NATIVE, TWIN, OTHER])
@pytest.mark.parametrize("endless", [b"0\r\nx-a: ", b"1;a="], ids=["trailer", "chunk extension"])
def test_what_follows_a_chunk_is_bounded_like_a_head(worker: HttpWorker, target: str, endless: bytes) -> None:
    """A trailer, or a chunk's extension, that does not end is refused at the bound of a head, to within one read of the
    socket (which may hold the body's last byte as well): the parser keeps a trailer in memory until its line ends."""
    caller = Caller(worker.port)
    caller.send(request(target, key=worker.key, headers=[CHUNKED], length=-1) + b"1\r\n \r\n" + endless)
    for _ in range(MOST_READS):
        if select.select([caller.socket], [], [], 0)[0]:
            break
        try:
            caller.send(b"b" * READ_BYTES)
        except ConnectionError:
            break
    reply = caller.reply()
    assert (reply.status, reply.json["code"]) == (431, "headers_too_large")
    assert caller.at_end()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_trailer_is_no_header(worker: HttpWorker, target: str) -> None:
    """What comes behind the body says nothing about who asks (RFC 9110, 6.5.1): a key there is none, and a request with
    a harmless trailer is answered."""
    body = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    for key, trailer, status in ((None, f"x-api-key: {worker.key}", 401), (worker.key, "x-api-key: other", 200)):
        caller = Caller(worker.port)
        head = request(target, key=key, headers=[CHUNKED], length=-1)
        caller.send(head + body + f"{trailer}\r\n\r\n".encode())
        assert caller.reply().status == status


def test_a_body_counts_for_as_long_as_it_is_held() -> None:
    """A caller that resets its connection while its request runs frees nothing yet: who did so again and again could
    fill the memory beyond http.max_inflight_bytes. Once the run is over, the bytes are given back, once."""
    begun, release = threading.Event(), threading.Event()

    def stuck(_: object) -> None:
        begun.set()
        release.wait(20)

    worker = HttpWorker(models=[servable(StubModel(before_run=stuck), in_loop=False)]).start()
    try:
        caller = Caller(worker.port)
        caller.send(request(NATIVE, BODY, key=worker.key))
        assert begun.wait(10)
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()  # with a reset: an orderly end may be a half-close, which is still answered
        until(lambda: not worker.shared.connections)
        assert worker.predictor.in_flight
        assert worker.shared.inflight_bytes == len(BODY)
        release.set()
        until(lambda: not worker.predictor.in_flight)
        assert worker.shared.inflight_bytes == 0
    finally:
        release.set()
        Caller.close_all()
        worker.stop()
