"""What a byte sent costs the server in memory and time, on every route, for the worst bodies that we know (S7, P4).

The bar is Envoy's: a request may not cost a hundred times its bytes, once it is larger than 10 KiB (1 MiB in all)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from raw_http import Caller, request
from server import RunningServer

from modelyard.http.management import TABLES
from modelyard.http.wire import PREDICT_ROUTES

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))
from figures import record

SIZE = 512 * 1024
FREE_BYTES = 1024 * 1024
TIMES = 100
REPEAT = 4


def numbers(size: int) -> bytes:
    """As many small numbers as fit where tensors belong."""
    count = size // 2
    data = b"1," * (count - 1) + b"1"
    return b'{"inputs":[{"name":"INPUT0","shape":[%d,16],"datatype":"INT64","data":[%b]}]}' % (count // 16, data)


def items(size: int) -> bytes:
    """As many empty items as fit."""
    return b'{"items":[' + b"{}," * (size // 3) + b"{}]}"


def brackets(size: int) -> bytes:
    """Empty lists in a list."""
    return b"[" + b"[]," * (size // 3) + b"[]]"


def names(size: int) -> bytes:
    """An object of many names."""
    return b"{" + b",".join(b'"%x":0' % n for n in range(size // 9)) + b"}"


def text(size: int) -> bytes:
    """One string, every character escaped."""
    return b'{"client":"' + rb"\u00e9" * (size // 6) + b'"}'


WORST: list[Callable[[int], bytes]] = [numbers, items, brackets, names, text]
ROUTES = [("POST", path) for path in PREDICT_ROUTES] + [
    (declared.method, declared.path) for table in TABLES for declared in table if declared.method in ("POST", "PUT")
]


def reset_peak(pid: int) -> int:
    """Forgets the highest memory so far; what it is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(server: RunningServer, pid: int, data: bytes) -> tuple[int, float]:
    """Memory above what there was, at the highest, and CPU seconds, of one such request."""
    before, spent = reset_peak(pid), cpu_s(pid)
    for _ in range(REPEAT):
        caller = Caller(server.port)
        with suppress(BrokenPipeError, ConnectionResetError, AssertionError):
            caller.send(data)
            caller.reply()
        caller.close()
    return peak_bytes(pid) - before, (cpu_s(pid) - spent) / REPEAT


def test_no_route_multiplies_what_it_is_sent(fortress: RunningServer) -> None:
    """S7 P4: the worst body of half a MiB on every route that takes one: at most a hundred times its bytes of memory
    beyond the first MiB, and less than a second of CPU."""
    key = fortress.create_key("amplifier", scopes=["admin", "predict"], rate="1000000/s")["key"]
    (pid,) = fortress.worker_pids()
    rows = []
    for method, path in ROUTES:
        target = path.format(model="simple", version="1", endpoint="simple", id="x")
        for make in WORST:
            data = request(target, make(SIZE), key=key, method=method, headers=["content-type: application/json"])
            memory, cpu = cost(fortress, pid, data)
            rows.append((memory / len(data), cpu, memory, method, path, make.__name__))
    rows.sort(reverse=True)
    print("\nmemory per byte · CPU ms · route · body")
    for times, cpu, _, method, path, body in rows[:10]:
        print(f"{times:8.1f} {cpu * 1e3:8.1f}  {method} {path}  {body}")
    slowest = max(rows, key=lambda row: row[1])
    record("S7 amplification", body_bytes=SIZE, routes=len(ROUTES), bodies=len(WORST),
           worst_memory_times=round(rows[0][0], 1), worst_route=f"{rows[0][3]} {rows[0][4]} {rows[0][5]}",
           worst_cpu_ms=round(slowest[1] * 1e3), worst_cpu_route=f"{slowest[3]} {slowest[4]} {slowest[5]}")  # fmt: skip
    assert all(memory <= FREE_BYTES or times < TIMES for times, _, memory, *_ in rows)
    assert slowest[1] < 1.0
    assert fortress.worker_pids() == [pid]


def test_the_gate_would_see_it() -> None:
    """S7: the measurement sees memory that was touched and given back: 64 MiB of this process."""
    before = reset_peak(os.getpid())
    kept = bytearray(os.urandom(1024) * 64 * 1024)
    del kept
    assert peak_bytes(os.getpid()) - before > 48 * 1024 * 1024


@pytest.mark.long
def test_ten_times_as_large(fortress: RunningServer) -> None:
    """S7: bodies of 4 MiB on the predict routes."""
    key = fortress.create_key("amplifier", scopes=["admin", "predict"], rate="1000000/s")["key"]
    (pid,) = fortress.worker_pids()
    worst = 0.0
    for path in PREDICT_ROUTES:
        target = path.format(model="simple", version="1", endpoint="simple", id="x")
        for make in WORST:
            data = request(target, make(8 * SIZE), key=key)
            memory, _ = cost(fortress, pid, data)
            worst = max(worst, memory / len(data))
    record("S7 amplification, 4 MiB", worst_memory_times=round(worst, 1))
    assert worst < TIMES
