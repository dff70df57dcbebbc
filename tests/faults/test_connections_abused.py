"""Clients that half-close, never read, reset, dribble, or only sit there: bounded, answered or closed, and never at
the cost of others (P4; F12, F13, F15, L5)."""

from __future__ import annotations

import http.client
import json
import os
import resource
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trained
from figures import record
from raw_http import Caller, request
from server import RunningServer, until
from stock import Stock

Stocked = Callable[..., RunningServer]
CANCER = "/v2/models/cancer/infer"


def body(row: int = 0) -> str:
    return json.dumps(trained.infer_body(X=trained.cancer().rows[row : row + 1]))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_bytes(pid: int) -> int:
    """What the process alone keeps (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """This process may open so many; a server started inside inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def median_ms(server: RunningServer, key: str, requests: int) -> float:
    """The median time of so many predictions on one connection, all of them right."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    times = []
    for _ in range(requests):
        begun = time.perf_counter()
        connection.request("POST", CANCER, body(), {"x-api-key": key})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        reply.read()
        times.append(time.perf_counter() - begun)
    connection.close()
    return statistics.median(times) * 1e3


def test_clients_that_break_off(stocked: Stocked, stock: Stock) -> None:
    """F12 P4: a client that sends and half-closes gets its answer, then the end; one that resets inside a body and one
    that vanishes after its request leave nothing; single bytes make one request; one that never reads is cut at the
    write buffer's bound. Afterwards the worker has the descriptors that it had."""
    server = stocked(workers=1, settings={"http.body_timeout_s": "2", "http.write_buffer_bytes": "65536"})
    (pid,) = server.worker_pids()
    assert median_ms(server, stock.key, 3) > 0
    base, before = descriptors(pid), memory_bytes(pid)
    good = request(CANCER, body(), key=stock.key)
    half = Caller(server.port)
    half.send(good)
    half.half_close()
    assert half.reply().status == 200
    assert half.at_end()
    dribble = Caller(server.port)
    for at in range(len(good)):
        dribble.send(good[at : at + 1])
    assert dribble.reply().status == 200
    for cut in (10, len(good) - 20, len(good)):
        for _ in range(20):
            caller = Caller(server.port)
            caller.send(good[:cut])
            caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
    deaf = Caller(server.port)
    deaf.socket.settimeout(0.2)
    metadata = request("/v2/models/cancer", key=stock.key, method="GET")
    sent = 0
    try:
        while sent < 64 * 1024 * 1024:
            sent += deaf.socket.send(metadata * 16)
    except OSError:
        pass  # it reads no more of us, or has cut us off
    assert sent < 64 * 1024 * 1024, "it goes on reading from a client that reads nothing"
    dribble.close()
    until(lambda: descriptors(pid) <= base, 15, "the descriptors come back")
    assert median_ms(server, stock.key, 3) > 0
    grown = memory_bytes(pid) - before
    assert grown < 16 * 1024 * 1024
    assert server.worker_pids() == [pid]
    record("F12 broken clients", never_read_accepted_bytes=sent, memory_grown_bytes=grown)
    server.stop()


def dribble(server: RunningServer, key: str, count: int, head: bool, within_s: float) -> tuple[float, float]:
    """So many connections send a byte now and then, in the head or in the body: all are closed by the deadline, with
    408. The seconds it took, and the median of a good client meanwhile."""
    good = request(CANCER, body(), key=key)
    start = good[:40] if head else good[: good.index(b"\r\n\r\n") + 10]
    rest = good[len(start) :]
    opened = [Caller(server.port) for _ in range(count)]
    answered: dict[int, bytes] = {}
    begun = time.monotonic()
    meanwhile = []
    with selectors.DefaultSelector() as selector:
        for number, caller in enumerate(opened):
            caller.send(start)
            caller.socket.setblocking(False)
            selector.register(caller.socket, selectors.EVENT_READ, number)
        for at in range(10_000):
            if len(selector.get_map()) == 0:
                break
            assert time.monotonic() - begun < within_s, f"{len(selector.get_map())} connections are still open"
            for selected, _ in selector.select(0.2):
                try:
                    data = opened[selected.data].socket.recv(4096)
                except ConnectionResetError:
                    data = b""
                answered[selected.data] = answered.get(selected.data, b"") + data
                if not data:
                    selector.unregister(selected.fileobj)
            for kept in list(selector.get_map().values()):
                try:
                    opened[kept.data].socket.send(rest[at : at + 1])
                except OSError:
                    selector.unregister(kept.fileobj)
            meanwhile.append(median_ms(server, key, 3))
    took = time.monotonic() - begun
    Caller.close_all()
    timed_out = sum(b" 408 " in text for text in answered.values())
    assert timed_out >= 0.9 * count, f"{timed_out} of {count} were told"
    return took, statistics.median(meanwhile)


def slowloris(stocked: Stocked, key: str, count: int, header_s: float, body_s: float) -> None:
    settings = {"http.header_timeout_s": str(header_s), "http.body_timeout_s": str(body_s)}
    with many_files(count + 1000):
        server = stocked(workers=1, settings=settings)
        (pid,) = server.worker_pids()
        alone = median_ms(server, key, 50)
        base = descriptors(pid)
        in_head, during_head = dribble(server, key, count, True, 3 * header_s + 20)
        in_body, during_body = dribble(server, key, count, False, 3 * body_s + 20)
        until(lambda: descriptors(pid) <= base + 2, 15, "the descriptors come back")
    record(
        f"F13 slowloris, {count}", connections=count, closed_in_head_after_s=round(in_head, 1),
        closed_in_body_after_s=round(in_body, 1), good_client_alone_p50_ms=round(alone, 2),
        good_client_meanwhile_p50_ms=round(max(during_head, during_body), 2),
    )  # fmt: skip
    server.stop()


def test_two_hundred_that_dribble(stocked: Stocked, stock: Stock) -> None:
    """F13 P4: 200 connections that send a byte now and then, first in their heads, then in their bodies, are closed at
    the deadline; others are answered meanwhile."""
    slowloris(stocked, stock.key, 200, 1.5, 2.0)


@pytest.mark.long
def test_two_thousand_that_dribble(stocked: Stocked, stock: Stock) -> None:
    """F13: 2,000 with the deadlines as they are set by default."""
    slowloris(stocked, stock.key, 2000, 10, 30)


def idle(stocked: Stocked, key: str, count: int) -> None:
    with many_files(count + 1000):
        server = stocked(workers=1)
        (pid,) = server.worker_pids()
        assert server.ask("GET", "/v1/models").status == 200  # the management application is there from now on
        alone = median_ms(server, key, 100)
        before = memory_bytes(pid)
        good = request(CANCER, body(), key=key)
        opened = [Caller(server.port) for _ in range(count)]
        for caller in opened:
            caller.send(good)
            assert caller.reply().status == 200
        each = (memory_bytes(pid) - before) / count
        beside = median_ms(server, key, 100)
        for caller in opened[:: max(1, count // 50)]:
            caller.send(good)
            assert caller.reply().status == 200
        Caller.close_all()
    record(
        f"L5 idle connections, {count}", connections=count, memory_each_bytes=round(each),
        alone_p50_ms=round(alone, 2), beside_p50_ms=round(beside, 2),
    )  # fmt: skip
    assert each < 25 * 1024
    server.stop()


def test_five_hundred_idle_connections(stocked: Stocked, stock: Stock) -> None:
    """L5 P4: 500 connections that have asked once and keep quiet cost less than 25 KiB each; they are answered when
    they speak again."""
    idle(stocked, stock.key, 500)


@pytest.mark.long
def test_five_thousand_idle_connections(stocked: Stocked, stock: Stock) -> None:
    """L5: 5,000."""
    idle(stocked, stock.key, 5000)


def status_of(caller: Caller) -> int:
    """Of the answer; 0 if the connection was closed without one."""
    try:
        return caller.reply().status
    except (AssertionError, OSError):
        return 0


def test_no_descriptor_left(stocked: Stocked, stock: Stock) -> None:
    """F15 P4: a server that may open 160 files and gets 300 connections serves as many as it has room for and turns the
    others away; it spends no core on accepting in vain, and answers everybody again as soon as connections end."""
    server = stocked(workers=1, through=("prlimit", "--nofile=160:160"))
    (pid,) = server.worker_pids()
    good = request(CANCER, body(), key=stock.key)
    opened = [Caller(server.port) for _ in range(300)]
    for caller in opened:
        with suppress(OSError):
            caller.send(good)
    statuses = [status_of(caller) for caller in opened]
    served, turned_away = statuses.count(200), statuses.count(503)
    assert set(statuses) <= {200, 503, 0}
    assert 60 <= served <= 160
    spent = cpu_s(pid)
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 1.5, what="a while")
    share = (cpu_s(pid) - spent) / (time.monotonic() - begun)
    assert share < 0.5, f"it spends {share:.0%} of a core on accepting in vain"
    assert descriptors(pid) < 160
    Caller.close_all()
    until(lambda: server.ask("POST", CANCER, body().encode(), key=stock.key, fresh=True).status == 200, 20, "an answer")
    assert server.worker_pids() == [pid]
    record("F15 no descriptor left", open_files=160, connections=300, served=served, told_503=turned_away,
           cut=statuses.count(0), cpu_share_meanwhile=round(share, 2))  # fmt: skip
    server.stop()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
