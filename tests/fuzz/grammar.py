"""Requests out of a grammar of HTTP/1.1, right and wrong, from one seed (Z3)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

METHODS = (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"BREW")
VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.", b"HTTP/9999.1", b"")
ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\n\r\n", b"\x00\r\n")
VALUES = (
    b"", b" ", b"a", b"\t", b"\x00", b"\xff\xfe", b"0", b"-1", b"1e9", b"99999999999999999999", b"%s%n", b"*/*",
    b"gzip", b"br, gzip;q=0", b"close", b"keep-alive", b"upgrade", b"100-continue", b"websocket", b"a" * 9000,
    b"chunked", b"application/json", b"text/plain; charset=\xe4", b"bytes=0-1", b"\"etag\"",
)  # fmt: skip
NAMES = (
    b"host", b"accept", b"accept-encoding", b"content-type", b"content-encoding", b"connection", b"expect", b"upgrade",
    b"range", b"if-match", b"x-request-id", b"x-modelyard-subject", b"idempotency-key", b"authorization", b"x-api-key",
    b"inference-header-content-length", b"x-forwarded-for", b"te", b"trailer", b"cookie", b"bad name", b"x_y", b"",
    b"\xc3\xa4", b"a" * 300,
)  # fmt: skip
GOOD_BODY = json.dumps({
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 30], "data": [0.5] * 30}]
}).encode()  # fmt: skip
BODIES = (
    b"", b"{}", b"[]", b"null", b"{", b"\x00" * 40, b"[" * 2000, b'{"inputs": 1}', b'{"items": [{}]}', GOOD_BODY,
    GOOD_BODY, GOOD_BODY[:-9], b'{"a": 1, "a": 2}', b"\xff" * 20,
)  # fmt: skip

LEGAL_SHARE = 0.7
"""How many requests are legal or nearly so; a wild one before them on a connection often ends it."""


def targets(paths: Sequence[str], model: str) -> tuple[bytes, ...]:
    """Each path with its parameters filled in, and what is no path."""
    filled = [path.replace("{", "\x00{").split("\x00") for path in paths]
    named = ["".join(part if part[:1] != "{" else model + part.partition("}")[2] for part in one) for one in filled]
    odd = ("*", "/", "//", "http://a/v2", "/%00", "/v2/models/%2e%2e/infer", "/v2/../v1", "/\xff", "a:80", "/?" * 50,
           "/v2/models/" + "a" * 9000 + "/infer", f"/v2/models/{model}/infer?x=%zz#y")  # fmt: skip
    return tuple(text.encode("latin-1") for text in (*named, *odd))


class Grammar:
    """`make` gives the bytes of one to three requests, and how they are cut for sending."""

    def __init__(self, chance: random.Random, paths: tuple[bytes, ...], hot: bytes, key: bytes) -> None:
        self._chance = chance
        self._paths = paths
        self._hot = hot
        self._key = key

    def make(self) -> list[bytes]:
        """Pieces in order; whoever sends them closes its side then."""
        data = b"".join(self._request() for _ in range(self._chance.choice((1, 1, 1, 2, 3))))
        if self._chance.random() < 0.15:
            data = data[: self._chance.randrange(len(data) + 1)]
        cuts = sorted(self._chance.randrange(len(data) + 1) for _ in range(self._chance.choice((0, 0, 1, 3))))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _request(self) -> bytes:
        return self._near() if self._chance.random() < LEGAL_SHARE else self._wild()

    def _near(self) -> bytes:
        """A legal request, of which at most one thing is otherwise than usual."""
        chance = self._chance
        head, body = [b"POST " + self._hot + b" HTTP/1.1", b"host: a", b"x-api-key: " + self._key], GOOD_BODY
        match chance.randrange(8):
            case 0:
                head[0] = b"GET " + chance.choice(self._paths) + b" HTTP/1.1"
                body = b""
            case 1:
                body = chance.choice(BODIES)
            case 2:
                head[2] = b"x-api-key: " + chance.choice((b"", b"mdy_x", self._key[:-1]))
            case 3:
                head.append(chance.choice((
                    b"accept-encoding: gzip", b"connection: close", b"x-request-id: " + b"a" * 99,
                    b"idempotency-key: %d" % chance.randrange(50),
                )))  # fmt: skip
        framing, body = self._chunk(body) if body and chance.random() < 0.2 else self._whole(body)
        return b"\r\n".join([*head, *framing]) + b"\r\n\r\n" + body

    def _chunk(self, body: bytes) -> tuple[list[bytes], bytes]:
        return [b"transfer-encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    def _wild(self) -> bytes:
        chance = self._chance
        usual = chance.random() < 0.5
        method = b"POST" if usual else chance.choice(METHODS)
        target = self._hot if usual else chance.choice(self._paths)
        end = b"\r\n" if usual else chance.choice(ENDS)
        space = b" " if chance.random() < 0.95 else chance.choice((b"", b"  ", b"\t", b"\x0b"))
        fields = [b"host: a"] if chance.random() < 0.9 else []
        if chance.random() < 0.8:
            fields.append(b"x-api-key: " + self._key)
        for _ in range(chance.choice((0, 0, 1, 2, 5, 80))):
            colon = chance.choice((b": ", b":", b" : ", b"", b":\r\n ", b": \t"))
            fields.append(chance.choice(NAMES) + colon + chance.choice(VALUES))
        framing, body = chance.choice((self._whole, self._whole, self._chunked, self._wrong))(chance.choice(BODIES))
        fields += framing
        chance.shuffle(fields)
        line = method + space + target + space + (b"HTTP/1.1" if usual else chance.choice(VERSIONS))
        return end.join([line, *fields]) + end + end + body

    def _whole(self, body: bytes) -> tuple[list[bytes], bytes]:
        return [b"content-length: %d" % len(body)], body

    def _chunked(self, body: bytes) -> tuple[list[bytes], bytes]:
        size = self._chance.choice((1, 7, 1000))
        parts = [body[at : at + size] for at in range(0, len(body), size)][:200]
        spoil: Callable[[bytes], bytes] = self._chance.choice((lambda b: b, lambda b: b, self._spoiled))
        chunks = b"".join(spoil(b"%x\r\n%b\r\n" % (len(part), part)) for part in parts)
        last = self._chance.choice((*(b"0\r\n\r\n",) * 4, b"0\r\na: b\r\n\r\n", b""))
        return [b"transfer-encoding: chunked"], chunks + last

    def _spoiled(self, chunk: bytes) -> bytes:
        if self._chance.random() < 0.9:
            return chunk
        before = self._chance.choice((b"g", b"-", b"f" * 17, b";x=y", b"0x", b""))
        return before + chunk if before else chunk[:-2]

    def _wrong(self, body: bytes) -> tuple[list[bytes], bytes]:
        length = b"%d" % len(body)
        return self._chance.choice((
            [b"content-length: %d" % (len(body) + 5)], [b"content-length: %d" % max(0, len(body) - 5)],
            [b"content-length: " + length, b"content-length: " + length + b"1"],
            [b"content-length: " + length, b"transfer-encoding: chunked"],
            [b"content-length: +" + length], [b"transfer-encoding: xchunked"], [b"content-length: 99999999999"], [],
        )), body  # fmt: skip
