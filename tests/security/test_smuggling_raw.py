"""One request is one request, whoever reads it (S5, P7): whatever two programs could read as different numbers of
requests is refused, and the connection ends; nothing after it is answered."""

from __future__ import annotations

import pytest
from raw_http import Caller
from server import RunningServer

PREDICT, LIVE = "/v2/models/simple/infer", "/v2/health/live"
INNER = b"GET /v2/health/live HTTP/1.1\r\nhost: smuggled\r\n\r\n"


def head(target: str, *fields: str) -> bytes:
    """A POST's head, its lines as they are given."""
    return ("\r\n".join((f"POST {target} HTTP/1.1", "host: a", *fields)) + "\r\n\r\n").encode("latin-1")


TRICKS = {
    "length and chunks": ("content-length: 5", "transfer-encoding: chunked"),
    "chunks and length": ("transfer-encoding: chunked", "content-length: 5"),
    "two lengths": ("content-length: 5", "content-length: 6"),
    "lengths in one field": ("content-length: 5, 6",),
    "signed length": ("content-length: +5",),
    "negative length": ("content-length: -5",),
    "hexadecimal length": ("content-length: 0x5",),
    "length with a space inside": ("content-length: 1 0",),
    "endless length": ("content-length: 99999999999999999999999",),
    "unknown coding": ("transfer-encoding: xchunked",),
    "coding after chunked": ("transfer-encoding: chunked, identity",),
    "folded": ("transfer-encoding:\r\n chunked",),
    "space before the colon": ("transfer-encoding : chunked",),
    "vertical tab": ("transfer-encoding:\x0bchunked",),
    "nothing before the colon": (": chunked",),
    "null in a name": ("transfer\x00-encoding: chunked",),
    "null in a value": ("x-a: b\x00c",),
    "carriage return in a value": ("x-a: b\rcontent-length: 0",),
}


@pytest.mark.parametrize("target", [PREDICT, LIVE])
@pytest.mark.parametrize("trick", TRICKS)
def test_an_ambiguous_head_ends_the_connection(fortress: RunningServer, target: str, trick: str) -> None:
    """S5 P7: at most one answer, a refusal, and the end: the request hidden behind it gets none."""
    caller = Caller(fortress.port)
    caller.send(head(target, *TRICKS[trick]) + b"0\r\n\r\n" + INNER)
    reply = caller.reply()
    assert 400 <= reply.status < 500, (reply.status, reply.body)
    assert caller.at_end(), f"something was answered after it: {caller.buffer!r}"


CHUNKS = {
    "bad end": b"5\r\nabcdeXX0\r\n\r\n",
    "bare line feeds": b"5\nabcde\n0\n\n",
    "no size": b"\r\nabcde\r\n0\r\n\r\n",
    "signed size": b"+5\r\nabcde\r\n0\r\n\r\n",
    "hexadecimal prefix": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "size beyond 64 bits": b"fffffffffffffffff5\r\nabcde\r\n0\r\n\r\n",
    "text after the size": b"5 abc\r\nabcde\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("target", [PREDICT, LIVE])
@pytest.mark.parametrize("trick", CHUNKS)
def test_a_broken_chunk_ends_the_connection(fortress: RunningServer, target: str, trick: str) -> None:
    """S5 P7: a chunk that is not as RFC 9112 writes it is refused; what follows is never read as a request."""
    caller = Caller(fortress.port)
    caller.send(head(target, "transfer-encoding: chunked") + CHUNKS[trick] + INNER)
    reply = caller.reply()
    assert 400 <= reply.status < 500, (reply.status, reply.body)
    assert caller.at_end(), f"something was answered after it: {caller.buffer!r}"


@pytest.mark.parametrize("name", ["transfer_encoding: chunked", "content_length: 99", "x-a: b"])
def test_look_alikes_mean_nothing(fortress: RunningServer, name: str) -> None:
    """S5: a field that only looks like another decides nothing: two requests are two answers."""
    caller = Caller(fortress.port)
    caller.send(head(LIVE, name, "content-length: 5").replace(b"POST", b"GET") + b"abcde" + INNER)
    assert [caller.reply().status, caller.reply().status] == [200, 200]
