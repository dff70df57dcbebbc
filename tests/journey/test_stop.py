"""SIGTERM loses nothing (K8, P2, P9), and `journal.durability = host` keeps its word."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trained
from server import RunningServer, command, until

sys.path.insert(0, str(Path(__file__).parent.parent / "contract"))
from raw_http import Caller, Reply, request

Serve = Callable[..., RunningServer]
CANCER, SLOW = "/v2/models/cancer/infer", "/v2/models/slow/infer"
SLOW_TURNS = 6000
UPLOAD = "/v1/models/uploaded/versions/1"


def slow_body(turns: int) -> str:
    return json.dumps(trained.infer_body(x=np.array([[trained.SLOW_ABOVE + turns]], np.float32)))


def cancer_body(row: int) -> str:
    return json.dumps(trained.infer_body(X=trained.cancer().rows[row : row + 1]))


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    yield
    Caller.close_all()


def loaded(serve: Serve, **options: object) -> tuple[RunningServer, str]:
    server = serve(**options)
    assert server.publish("cancer", trained.cancer().content, "1").status == 201
    assert server.publish("slow", trained.slow(), "1").status == 201
    return server, server.create_key("stopping", rate="1000000/s")["key"]


class Asked:
    """A request sent in this thread, whose answer is read in another."""

    def __init__(self, caller: Caller, data: bytes) -> None:
        self._caller = caller
        self._got: list[Reply | BaseException] = []
        caller.send(data)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            self._got.append(self._caller.reply())
        except BaseException as error:
            self._got.append(error)

    @property
    def pending(self) -> bool:
        return not self._got

    def answer(self) -> Reply:
        self._reader.join(30)
        assert self._got, "no answer within 30 s"
        if isinstance(self._got[0], BaseException):
            raise self._got[0]
        return self._got[0]


def value(reply: Reply, name: str) -> list[float]:
    data: list[float] = next(output["data"] for output in reply.json["outputs"] if output["name"] == name)
    return data


def ready(port: int) -> int:
    """Readiness as a load balancer asks, over a new connection; 0 if nobody accepts any more."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asking:
            asking.sendall(request("/v2/health/ready", method="GET", headers=["connection: close"]))
            return int(asking.recv(4096).partition(b" ")[2][:3] or 0)
    except OSError:
        return 0


def test_sigterm_with_six_in_flight(serve: Serve) -> None:
    """K8: with six requests in flight (two of a slow model, a fast one whose body is half sent, two uploads under
    way, an idle connection's next) readiness is false first while the socket still accepts; then all six get their
    right answers, each on its connection; idle connections are closed; the status is 0 in under 30 s; every answered
    prediction is in the log."""
    server, key = loaded(serve, settings={"http.drain_delay_s": "1.5"})
    port = server.port
    content = trained.digits().content
    half, upload, second_upload, late, idle = (Caller(port) for _ in range(5))
    fast = request(CANCER, cancer_body(0), key=key)
    idle.send(fast)
    assert idle.reply().status == 200
    late.send(fast)
    assert late.reply().status == 200
    half_request = request(CANCER, cancer_body(1), key=key)
    put = request(UPLOAD, content, key=server.key, method="PUT", headers=["content-type: application/octet-stream"])
    half.send(half_request[:-40])
    upload.send(put[:-500])
    second_put = put.replace(UPLOAD.encode(), UPLOAD.replace("uploaded", "again").encode())
    second_upload.send(second_put[:-500])
    slow = [Asked(Caller(port), request(SLOW, slow_body(SLOW_TURNS + more), key=key)) for more in (0, 1)]
    assert server.ask("GET", "/v2/health/live", key=None).status == 200
    server.pool.clear()
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    assert all(asked.pending for asked in slow)
    until(lambda: ready(port) == 503, 1.4, "readiness false while it still accepts")
    late.send(fast)
    answered = late.reply()
    assert (answered.status, answered.headers["connection"]) == (200, "close")
    half.send(half_request[-40:])
    upload.send(put[-500:])
    second_upload.send(second_put[-500:])
    replies = [*(asked.answer() for asked in slow), half.reply(), upload.reply(), second_upload.reply()]
    assert [reply.status for reply in replies] == [200, 200, 200, 201, 201], [reply.body for reply in replies]
    assert [value(reply, "y") for reply in replies[:2]] == [[7000.0], [7001.0]]
    assert np.allclose(value(replies[2], "probabilities"), trained.cancer().probabilities[1], atol=1e-6)
    assert idle.at_end()
    assert server.wait() == 0
    assert time.monotonic() - begun < 30
    assert ready(port) == 0
    counted = command("predictions", "count", "--status", "2xx", "--data", server.data, "--json")
    assert json.loads(counted.stdout) == {"count": 6}, counted
    listed = json.loads(command("models", "list", "--data", server.data, "--json").stdout)
    assert {"again", "uploaded"} <= {model["name"] for model in listed["models"]}
    assert [event["event"] for event in server.events()][-1] == "server.stopped"


def test_second_sigterm_hastens(serve: Serve) -> None:
    """A second SIGTERM ends the wait before the socket closes; what is in flight is still answered right, the status
    is 0, and the next start finds a whole log."""
    server, key = loaded(serve, settings={"http.drain_delay_s": "15"})
    asked = Asked(Caller(server.port), request(SLOW, slow_body(5000), key=key))
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    until(lambda: ready(server.port) == 503, 5, "readiness false")
    assert asked.pending
    server.signal(signal.SIGTERM)
    reply = asked.answer()
    assert (reply.status, value(reply, "y")) == (200, [6000.0])
    assert server.wait() == 0
    assert time.monotonic() - begun < 12
    again = serve()
    again.key = server.key
    assert again.count(status="2xx") == 1


def test_a_caller_that_never_ends_delays_only_so_long(serve: Serve) -> None:
    """A body that never comes whole does not keep a hastened stop from ending in under 30 s with status 0."""
    server, key = loaded(serve, settings={"http.drain_delay_s": "0.1"})
    caller = Caller(server.port)
    caller.send(request(CANCER, cancer_body(0), key=key)[:-10])
    until(lambda: server.ask("GET", "/v2/health/live", key=None).status == 200)
    server.signal(signal.SIGTERM)
    until(lambda: ready(server.port) != 200, 5, "readiness false")
    server.signal(signal.SIGTERM)
    begun = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - begun < 29


def test_interrupt_is_a_stop(serve: Serve) -> None:
    """Ctrl-C ends the server as SIGTERM does."""
    server = serve()
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert server.events("server.stopped")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=2)


def test_store_durability(serve: Serve) -> None:
    """`journal.durability = store`: an answer that is here is a row of the database, at once; nothing is spooled."""
    server, key = loaded(serve, settings={"journal.durability": "store"}, workers=2)
    for row in range(20):
        reply = server.ask("POST", CANCER, cancer_body(row).encode(), key=key)
        assert reply.status == 200
        record = server.ask("GET", f"/v1/predictions/{reply.headers['x-prediction-id']}")
        assert (record.status, record.json["status"], record.json["rows"]) == (200, 200, 1)
    assert list((server.data / "spool").glob("*.spool")) == []


def test_host_durability(serve: Serve) -> None:
    """`journal.durability = host` answers, and every answer is in the log once."""
    server, key = loaded(serve, settings={"journal.durability": "host"})
    ids = []
    for row in range(20):
        reply = server.ask("POST", CANCER, cancer_body(row).encode(), key=key)
        assert reply.status == 200
        ids.append(reply.headers["x-prediction-id"])
    until(lambda: server.count() == 20, what="the log")
    page = server.ask("GET", "/v1/predictions?limit=100").json["predictions"]
    assert sorted(record["id"] for record in page) == sorted(ids)
