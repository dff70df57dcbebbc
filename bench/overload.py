"""`python -m bench.overload`: what a server does beyond its capacity (promise P4). For an otherwise idle machine.

A model of 5 to 20 ms; capacity C is the highest closed rate; then 0.7 (what is normal), 1, 2, 5 and 10 times C arrive
as an open model: requests are sent when they are due, whether earlier ones were answered or not, and each latency
counts from the moment its request was due (so that a server that stalls cannot hide it). Goodput is counted at the
client. JSON and a plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.bodies import as_http
from bench.servers import CLIENT_CORE, Target, modelyard, published

NORMAL = 0.7
FACTORS = (NORMAL, 1, 2, 5, 10)
WIDTH = 96
"""Channels of each layer; six layers have 326 million products a row."""
CLOSED = 8
"""Callers that find the capacity: always somebody waits, and nobody is refused."""
CONNECTIONS = 2048
"""More than `limits.max_concurrency`: it is the server that refuses, not the client that holds back."""
RECOVERY_S = 5.0


def model(folder: Path, width: int, layers: int) -> Path:
    """A convolutional network on 28 x 28 points with seeded weights, as ONNX: slow by its size, not by a trick, and
    slow for every row: no batch makes a row cheaper, so capacity is what one run says it is."""
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        values = chance.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [numpy_helper.from_array(np.array([-1, 1, 28, 28], np.int64), "image"), weight("last", width, 10)]
    nodes = [helper.make_node("Reshape", ["x", "image"], ["h0"])]
    for number in range(layers):
        weights.append(weight(f"w{number}", width, width if number else 1, 3, 3))
        nodes.append(helper.make_node("Conv", [f"h{number}", f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"h{number + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"h{layers}"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["y"]))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", s]) for n, s in (("x", 784), ("y", 10))]
    graph = helper.make_graph(nodes, "wide", value[:1], value[1:], weights)
    path = folder / "wide.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(proto.SerializeToString())
    return path


@dataclass
class Seen:
    """What a client saw. Latencies are in seconds from the moment the request was due."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    unsent: int = 0


class Caller(asyncio.Protocol):
    """One connection; answers come in the order of the requests."""

    def __init__(self, request: bytes, seen: Seen, free: deque[Caller]) -> None:
        self.request = request
        self.seen = seen
        self.free = free
        self.due: deque[float] = deque()
        self.buffer = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.free.append(self)

    def ask(self, due: float) -> None:
        self.due.append(due)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            at = head.lower().index(b"content-length: ") + 16
            end = head.find(b"\r\n", at)
            size = int(head[at : end if end >= 0 else len(head)])
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            took = time.perf_counter() - self.due.popleft()
            status = int(head[9:12])
            (self.seen.accepted if status == 200 else self.seen.refused).append(took)
            said = "200" if status == 200 else json.loads(rest[:size])["code"]
            self.seen.statuses[said] = self.seen.statuses.get(said, 0) + 1
            if not self.due:
                self.free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.seen.broken += len(self.due)


async def connect(target: Target, seen: Seen, connections: int, request: bytes | None = None) -> deque[Caller]:
    """So many connections, all free."""
    free: deque[Caller] = deque()
    host, port = target.url.split("/")[2].split(":")
    request = request or _request(target)
    for _ in range(connections):
        await asyncio.get_running_loop().create_connection(lambda: Caller(request, seen, free), host, int(port))
    return free


def _request(target: Target) -> bytes:
    values = np.round(np.random.default_rng(1).random(784), 3).tolist()
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 784], "datatype": "FP32", "data": values}]})
    return as_http(target.url, target.headers, body.encode())


async def open_load(
    target: Target,
    rate: float,
    seconds: float,
    *,
    constant: bool = False,
    connections: int = CONNECTIONS,
    request: bytes | None = None,
) -> Seen:
    """Requests of callers who know nothing of each other (a Poisson process, seeded), or evenly spaced (`constant`),
    each on a free connection; one for which none is free counts as unsent."""
    seen = Seen()
    free = await connect(target, seen, connections, request)
    callers = list(free)
    begun = time.perf_counter()
    gaps = float if constant else np.random.default_rng(2).exponential
    due = gaps(1 / rate)
    while (now := time.perf_counter() - begun) < seconds:
        while due <= now:
            while free and free[0].closed:
                free.popleft()
            if free:
                free.popleft().ask(begun + due)
            else:
                seen.unsent += 1
            due += gaps(1 / rate)
        await asyncio.sleep(min(0.001, max(0.0, due - now)))
    for _ in range(300):
        if not any(caller.due for caller in callers if not caller.closed):
            break
        await asyncio.sleep(0.1)
    for caller in callers:
        caller.transport.close()
    await asyncio.sleep(0.05)
    return seen


async def closed_rate(target: Target, connections: int, seconds: float) -> tuple[float, float]:
    """Answers a second with so many callers that wait for each answer, and their median latency in seconds."""
    seen = Seen()
    free = await connect(target, seen, connections)
    callers = list(free)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        while free:
            free.popleft().ask(time.perf_counter())
        await asyncio.sleep(0)
    elapsed = time.perf_counter() - begun
    for caller in callers:
        caller.transport.close()
    return len(seen.accepted) / elapsed, statistics.median(seen.accepted or [float("inf")])


def percentile_ms(values: list[float], share: float) -> float | None:
    """None where there are none."""
    return round(float(np.quantile(values, share)) * 1e3, 2) if values else None


def memory_bytes(port: str) -> int:
    """PSS of every process that serves on this port's command line."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if b"modelyard.entry.worker" in (entry / "cmdline").read_bytes() and _listens(entry, port):
                text = (entry / "smaps_rollup").read_text()
                total += 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def _listens(entry: Path, port: str) -> bool:
    parent = next(line.split()[1] for line in (entry / "status").read_text().splitlines() if line.startswith("PPid:"))
    return port.encode() in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")


async def measure(target: Target, seconds: float) -> dict[str, Any]:
    """Capacity, the four loads, and how soon all is normal after each."""
    port = target.url.split("/")[2].split(":")[1]
    await closed_rate(target, CLOSED, 2)
    capacity, _ = await closed_rate(target, CLOSED, seconds / 2)
    _, normal = await closed_rate(target, 1, 2)
    found: dict[str, Any] = {"capacity_per_s": round(capacity, 1), "run_alone_p50_ms": round(normal * 1e3, 2)}
    loads = []
    for factor in FACTORS:
        before = memory_bytes(port)
        spent = time.process_time()
        seen = await open_load(target, factor * capacity, seconds)
        spent = time.process_time() - spent
        after = memory_bytes(port)
        loads.append({
            "factor": factor, "offered_per_s": round(factor * capacity, 1),
            "goodput_per_s": round(len(seen.accepted) / seconds, 1),
            "goodput_share": round(len(seen.accepted) / seconds / capacity, 3),
            "accepted_p50_ms": percentile_ms(seen.accepted, 0.5), "accepted_p99_ms": percentile_ms(seen.accepted, 0.99),
            "accepted_p99_over_normal": None,
            "refused": len(seen.refused), "refused_p50_ms": percentile_ms(seen.refused, 0.5),
            "refused_p99_ms": percentile_ms(seen.refused, 0.99), "statuses": seen.statuses, "broken": seen.broken,
            "unsent": seen.unsent, "memory_before_bytes": before, "memory_after_bytes": after,
            "generator_cpu_share": round(spent / seconds, 2), "normal_again_after_s": await recovery(target, normal),
        })  # fmt: skip
        loads[-1]["accepted_p99_over_normal"] = round(loads[-1]["accepted_p99_ms"] / loads[0]["accepted_p99_ms"], 2)
        print(json.dumps(loads[-1]), flush=True)
    return found | {"loads": loads}


async def recovery(target: Target, normal: float) -> float | None:
    """Seconds until ten requests in a row take at most twice what one takes alone; None if that takes too long."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < RECOVERY_S:
        rate, median = await closed_rate(target, 1, 10 * normal)
        if rate and median <= 2 * normal:
            return round(time.perf_counter() - begun, 2)
    return None


def plot(found: dict[str, Any], path: Path) -> None:
    """Goodput and latencies over the offered load."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loads = found["loads"]
    factors = [load["factor"] for load in loads]
    picture, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
    upper.plot(factors, [load["goodput_share"] for load in loads], "o-", color="#0b7285")
    upper.axhline(0.9, color="#adb5bd", linestyle="--", linewidth=1)
    upper.set_ylim(0, 1.2)
    upper.set_title("answered in time, as a share of capacity (bar: 0.9)", loc="left", fontsize=10)
    lower.plot(factors, [load["accepted_p99_ms"] for load in loads], "o-", color="#0b7285", label="accepted, p99")
    refused = [(load["factor"], load["refused_p99_ms"]) for load in loads if load["refused_p99_ms"] is not None]
    lower.plot(*zip(*refused, strict=True), "s-", color="#e8b04a", label="refused, p99") if refused else None
    lower.set_yscale("log")
    lower.set_title("milliseconds from the moment a request was due", loc="left", fontsize=10)
    lower.set_xlabel("offered load, times capacity")
    lower.set_xscale("log")
    lower.set_xticks(factors, [f"{factor:g}" for factor in factors])
    lower.minorticks_off()
    lower.legend(frameon=False, fontsize=8)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    picture.savefig(path, dpi=130)
    plt.close(picture)


def main() -> None:
    """Measures, prints, writes bench/results/overload.json and overload.png."""
    parser = argparse.ArgumentParser(prog="bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="Length of each load.")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--max-concurrency", type=int, help="limits.max_concurrency, if not the default.")
    parser.add_argument("--max-wait-ms", type=float, help="batching.max_wait_ms, if not the default.")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    given = {"LIMITS__MAX_CONCURRENCY": chosen.max_concurrency, "BATCHING__MAX_WAIT_MS": chosen.max_wait_ms}
    extra = {f"MODELYARD_{name}": str(value) for name, value in given.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="modelyard-overload-") as folder:
        path = model(Path(folder), chosen.width, chosen.layers)
        data = Path(folder) / "data"
        with modelyard(data, published(data, {"m": path}), extra) as target:
            found = uvloop.run(measure(target, chosen.seconds))
            urllib.request.urlopen(target.url.split("/v2/")[0] + "/v2/health/ready", timeout=10).close()
    chosen.out.mkdir(parents=True, exist_ok=True)
    record = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "seconds": chosen.seconds,
              "width": chosen.width, "layers": chosen.layers, "max_concurrency": chosen.max_concurrency,
              "max_wait_ms": chosen.max_wait_ms,
              "durability": "process", "python": sys.version.split()[0], **found}  # fmt: skip
    (chosen.out / "overload.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(found, chosen.out / "overload.png")


if __name__ == "__main__":
    main()
