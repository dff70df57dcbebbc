"""Bytes out of a grammar of HTTP/1.1, right and wrong, over raw sockets to a real server (Z3)."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("", "../journey"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

import trained  # noqa: E402
from grammar import GOOD_BODY, Grammar, targets  # noqa: E402
from server import RunningServer  # noqa: E402

SEED = 20_261_128
ENDED_WITHIN_S = 20.0
"""A connection of which nothing more comes is answered and closed well before this; what takes longer hangs."""
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LEAST_SHARE = 0.25
"""So many 2xx, and so many 4xx, there are per case at least."""
HOT = "/v2/models/cancer/infer"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Two workers and one model."""
    started = RunningServer(tmp_path / "data", workers=2).start()
    try:
        assert started.publish("cancer", trained.cancer(1.0).content, "1").status == 201
        yield started
    finally:
        started.end()


def exchange(port: int, pieces: list[bytes]) -> bytes:
    """All that the server says to these bytes until it closes; TimeoutError if it doesn't."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ENDED_WITHIN_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                line.sendall(piece)
            line.shutdown(socket.SHUT_WR)
            while data := line.recv(65536):
                said += data
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
    return said


@pytest.mark.parametrize("cases", [1_500, pytest.param(100_000, marks=pytest.mark.long)])
def test_whatever_bytes_come_are_answered_or_ended(server: RunningServer, cases: int) -> None:
    """No answer is a 5xx (but 503 with a code), none hangs, the connection ends; a good request right after each
    hundred is answered, and no worker was lost. Seeded; the statuses are printed."""
    key = server.create_key("fuzz", rate="1000000/s")["key"]
    paths = json.loads(server.ask("GET", "/openapi.json").body)["paths"]
    grammar = Grammar(random.Random(SEED), targets(list(paths), "cancer"), HOT.encode(), key.encode())
    workers, found = server.worker_pids(), Counter[str]()
    for number in range(cases):
        pieces = grammar.make()
        try:
            said = exchange(server.port, pieces)
        except TimeoutError:
            raise AssertionError(f"case {number} hangs: {pieces!r}") from None
        statuses = [match.decode() for match in STATUS.findall(said)]
        bad = [status for status in statuses if status >= "500" and (status != "503" or b'"code"' not in said)]
        assert not bad, f"case {number}: {pieces!r} got {said[:2000]!r}"
        found.update(statuses or ["closed"])
        if number % 100 == 0 or number == cases - 1:
            assert server.ask("POST", HOT, GOOD_BODY, key=key, fresh=True).status == 200, f"after case {number}"
    print(f"{cases} cases: {dict(sorted(found.items()))}")
    good = sum(count for status, count in found.items() if status < "300")
    refused = sum(count for status, count in found.items() if "400" <= status < "500")
    assert min(good, refused) > LEAST_SHARE * cases, "the grammar is too mild or too hostile"
    assert min(found["401"], found["404"]) > 0, "the grammar reaches too little"
    assert server.worker_pids() == workers
    assert not server.events("request.failed"), server.events("request.failed")[:1]
    server.stop()
