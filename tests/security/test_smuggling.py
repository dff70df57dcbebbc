"""Request smuggling (S5): whatever two readers could read in two ways is one request for us, or none and the end of the
connection; directly, and behind a proxy that keeps its connections to us."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxy import Nginx, nginx_is_here
from server import RunningServer

SMUGGLED = "smuggled-request"
FIRST = "outer-request"
HIDDEN = f"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nx-request-id: {SMUGGLED}\r\n\r\n"
"""What an attacker hides in another request's body: it answers with its own request id, if anybody reads it as one."""
QUIET_S = 0.5
"""An answer that did not come by then does not come: all is on this machine, and health is answered at once."""
ANSWER_S = 10.0
BY_PROXIES = (501, 505)
"""What nginx says of codings and versions that it does not know; we say 400."""
AT_ONCE = 16


@dataclass(frozen=True)
class Case:
    """One ambiguous request: `target`, `host` and `head` as they are sent, then `body`."""

    name: str
    head: str
    body: str = HIDDEN
    target: str = "POST /v2/models/simple/infer HTTP/1.1"
    host: bool = True

    def bytes(self, key: str) -> bytes:
        """As it goes to the socket, with a good key, so that nothing ends it before its body is read."""
        lines = [self.target, *(["Host: x"] if self.host else []), f"x-request-id: {FIRST}", f"x-api-key: {key}"]
        top = "\r\n".join(lines) + "\r\n" + self.head
        return (top + "\r\n" + self.body).encode("latin-1")


LENGTH = len(HIDDEN)
CHUNKED = "Transfer-Encoding: chunked\r\n"
EMPTY = "0\r\n\r\n"


def _chunk(size: str, data: str, end: str = "\r\n") -> str:
    return f"{size}\r\n{data}{end}{EMPTY}"


CASES = [
    # Two lengths of one body.
    Case("length and chunked", f"Content-Length: 4\r\n{CHUNKED}", EMPTY + HIDDEN),
    Case("chunked and length", f"{CHUNKED}Content-Length: 4\r\n", EMPTY + HIDDEN),
    Case("length of all and chunked", f"Content-Length: {LENGTH + 5}\r\n{CHUNKED}", EMPTY + HIDDEN),
    Case("two lengths", f"Content-Length: 0\r\nContent-Length: {LENGTH}\r\n"),
    Case("two lengths reversed", f"Content-Length: {LENGTH}\r\nContent-Length: 0\r\n"),
    Case("two lengths in one", f"Content-Length: 0, {LENGTH}\r\n"),
    Case("length plus", f"Content-Length: +{LENGTH}\r\n"),
    Case("length minus", "Content-Length: -1\r\n"),
    Case("length hex", "Content-Length: 0x10\r\n"),
    Case("length fraction", "Content-Length: 1.0\r\n"),
    Case("length exponent", "Content-Length: 1e1\r\n"),
    Case("length empty", "Content-Length: \r\n"),
    Case("length words", "Content-Length: zero\r\n"),
    Case("length huge", f"Content-Length: {2**64 + LENGTH}\r\n"),
    Case("length long", f"Content-Length: {'0' * 40}{LENGTH + 1}x\r\n"),
    Case("length inner space", "Content-Length: 1 0\r\n"),
    # A coding that only one of two readers knows.
    Case("xchunked", "Transfer-Encoding: xchunked\r\n", EMPTY + HIDDEN),
    Case("chunked twice", f"{CHUNKED}{CHUNKED}", EMPTY + HIDDEN),
    Case("chunked then identity", f"{CHUNKED}Transfer-Encoding: identity\r\n", EMPTY + HIDDEN),
    Case("identity then chunked", f"Transfer-Encoding: identity\r\n{CHUNKED}", EMPTY + HIDDEN),
    Case("chunked, identity", "Transfer-Encoding: chunked, identity\r\n", EMPTY + HIDDEN),
    Case("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", EMPTY + HIDDEN),
    Case("identity", f"Transfer-Encoding: identity\r\nContent-Length: {LENGTH}\r\n"),
    Case("coding quoted", 'Transfer-Encoding: "chunked"\r\n', EMPTY + HIDDEN),
    Case("coding empty", f"Transfer-Encoding: \r\nContent-Length: {LENGTH}\r\n"),
    Case("coding with parameter", "Transfer-Encoding: chunked;q=0\r\n", EMPTY + HIDDEN),
    Case("coding with vertical tab", "Transfer-Encoding: \x0bchunked\r\n", EMPTY + HIDDEN),
    Case("coding with NUL", "Transfer-Encoding: chunked\x00\r\n", EMPTY + HIDDEN),
    Case("coding in HTTP/1.0", CHUNKED, EMPTY + HIDDEN, "POST /v2/models/simple/infer HTTP/1.0"),
    # Lines that only one of two readers sees.
    Case("space before colon, length", f"Content-Length : {LENGTH}\r\n"),
    Case("space before colon, coding", f"Transfer-Encoding : chunked\r\nContent-Length: {LENGTH}\r\n"),
    Case("tab before colon", f"Transfer-Encoding\t: chunked\r\nContent-Length: {LENGTH}\r\n"),
    Case("folded coding", f"Transfer-Encoding:\r\n chunked\r\nContent-Length: {LENGTH}\r\n"),
    Case("folded line", f"X: y\r\n Content-Length: 0\r\nContent-Length: {LENGTH}\r\n"),
    Case("leading space", f" Content-Length: {LENGTH}\r\n"),
    Case("bare line feed", f"X: y\nContent-Length: {LENGTH}\r\n"),
    Case("bare carriage return", f"X: y\rContent-Length: {LENGTH}\r\n"),
    Case("NUL in a value", f"X: y\x00z\r\nContent-Length: {LENGTH}\r\n"),
    Case("NUL in a name", f"X\x00: y\r\nContent-Length: {LENGTH}\r\n"),
    Case("control in a name", f"Content\x01Length: 0\r\nContent-Length: {LENGTH}\r\n"),
    Case("no colon", f"Content-Length\r\nContent-Length: {LENGTH}\r\n"),
    Case("no name", f": y\r\nContent-Length: {LENGTH}\r\n"),
    Case("underscore", f"Content_Length: 0\r\nContent-Length: {LENGTH}\r\n"),
    Case("underscore coding", f"Transfer_Encoding: chunked\r\nContent-Length: {LENGTH}\r\n"),
    # Chunks that end in two places.
    Case("chunk extension", CHUNKED, f"{LENGTH:x};a=b\r\n{HIDDEN}\r\n{EMPTY}"),
    Case("chunk extension with line feed", CHUNKED, f"{LENGTH:x};a\n{HIDDEN}\r\n{EMPTY}"),
    Case("chunk size space", CHUNKED, _chunk(f"{LENGTH:x} ", HIDDEN)),
    Case("chunk size plus", CHUNKED, _chunk(f"+{LENGTH:x}", HIDDEN)),
    Case("chunk size minus", CHUNKED, _chunk("-1", HIDDEN)),
    Case("chunk size prefix", CHUNKED, _chunk(f"0x{LENGTH:x}", HIDDEN)),
    Case("chunk size huge", CHUNKED, _chunk(f"1{'0' * 16}{LENGTH:x}", HIDDEN)),
    Case("chunk size underscore", CHUNKED, _chunk("1_0", HIDDEN)),
    Case("chunk too short", CHUNKED, _chunk("1", HIDDEN)),
    Case("chunk without end", CHUNKED, _chunk(f"{LENGTH:x}", HIDDEN, "")),
    Case("chunk with another end", CHUNKED, _chunk(f"{LENGTH:x}", HIDDEN, "XX")),
    Case("chunk with line feeds", CHUNKED, f"{LENGTH:x}\n{HIDDEN}\n0\n\n"),
    Case("length in a trailer", CHUNKED, f"{LENGTH:x}\r\n{HIDDEN}\r\n0\r\nContent-Length: 0\r\n\r\n"),
    # Whose request is it?
    Case("two hosts", f"Host: y\r\nContent-Length: {LENGTH}\r\n"),
    Case("no host", f"Content-Length: {LENGTH}\r\n", host=False),
    Case("absolute target", f"Content-Length: {LENGTH}\r\n", target="POST http://y/v2/models/simple/infer HTTP/1.1"),
    Case("space in the target", f"Content-Length: {LENGTH}\r\n", target="POST /v2/models/simple infer HTTP/1.1"),
    Case("HTTP/9.9", f"Content-Length: {LENGTH}\r\n", target="POST /v2/models/simple/infer HTTP/9.9"),
    Case("http in lower case", f"Content-Length: {LENGTH}\r\n", target="POST /v2/models/simple/infer http/1.1"),
    Case("body on GET", f"Content-Length: {LENGTH}\r\n", target="GET /v2/health/live HTTP/1.1"),
    Case("upgrade with a body", f"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: {LENGTH}\r\n"),
    Case("expect with a body", f"Expect: 100-continue\r\nContent-Length: {LENGTH}\r\n"),
    Case("plain", f"Content-Length: {LENGTH}\r\n"),
    Case("plain chunks", CHUNKED, _chunk(f"{LENGTH:x}", HIDDEN)),
]
RESTS = [
    Case(f"{case.name}, managing", case.head, case.body, "PUT /v1/endpoints/simple/traffic HTTP/1.1")
    for case in CASES if case.target == Case.target and case.host
]  # fmt: skip


def exchange(port: int, data: bytes) -> tuple[bytes, bool]:
    """All that comes back, until the other side ends or is quiet; and whether it ended."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        connection.sendall(data)
        while True:
            try:
                part = connection.recv(65_536)
            except ConnectionResetError:
                return got, True
            except TimeoutError:
                return got, False
            if not part:
                return got, True
            got += part
            connection.settimeout(QUIET_S)


def statuses(answer: bytes) -> list[int]:
    """The status of every answer in what came back, interim ones left out."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return [status for status in (int(line.split(b" ")[1]) for line in lines) if status != 100]


def verdict(port: int, key: str, case: Case) -> str:
    """`one`: exactly one request was read. `refused`: it was refused as malformed and the connection ended."""
    answer, ended = exchange(port, case.bytes(key))
    assert SMUGGLED.encode() not in answer, (case.name, answer)
    found = statuses(answer)
    assert len(found) <= 1, (case.name, answer)
    assert found, (case.name, "no answer", answer, ended)
    (status,) = found
    assert status < 500 or status in BY_PROXIES, (case.name, answer)
    if FIRST.encode() in answer and b"http_invalid" not in answer:
        return "one"
    assert ended, (case.name, "refused, and the connection stays", answer)
    return "refused"


@pytest.fixture(scope="module")
def key(fortress: RunningServer) -> str:
    """A key that may do everything, hardly limited."""
    made: str = fortress.create_key("smuggler", scopes=["admin", "predict"], rate="1000000/s")["key"]
    return made


@pytest.fixture(scope="module")
def nginx(fortress: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """In front of the fortress."""
    if not nginx_is_here():
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    started = Nginx(Path(tmp_path_factory.mktemp("nginx")) / "it", fortress.port).start()
    yield started
    started.stop()


def verdicts(port: int, key: str) -> dict[str, str]:
    """The verdict of every case, some at a time."""
    cases = [*CASES, *RESTS]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        said = threads.map(lambda case: verdict(port, key, case), cases)
        found = dict(zip((case.name for case in cases), said, strict=True))
    assert len(found) == len(cases)
    return found


def test_one_request_or_none(fortress: RunningServer, key: str) -> None:
    """What hides in the body is never read as a request, whatever the head says of the body's length."""
    found = verdicts(fortress.port, key)
    print(f"directly: {Counter(found.values())} of {len(found)}, 0 smuggled")
    assert {found["plain"], found["plain chunks"]} == {"one"}
    assert sum(said == "refused" for said in found.values()) >= 80


def test_the_same_behind_a_proxy(fortress: RunningServer, nginx: Nginx, key: str) -> None:
    """Behind nginx the same; what it lets pass is one request for us too, and what comes next over the connections
    that it keeps is answered as itself."""
    found = verdicts(nginx.port, key)
    directly = verdicts(fortress.port, key)
    softer = sorted(name for name, said in found.items() if said == "one" and directly[name] == "refused")
    print(f"behind nginx: {Counter(found.values())} of {len(found)}, 0 smuggled; it mended {len(softer)}: {softer}")
    assert {found["plain"], found["plain chunks"]} == {"one"}
    follow = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\nx-request-id: next-%d\r\nConnection: close\r\n\r\n"
    for number in range(20):
        answer, _ = exchange(nginx.port, (follow % number).encode())
        assert statuses(answer) == [200]
        assert f"x-request-id: next-{number}".encode() in answer
