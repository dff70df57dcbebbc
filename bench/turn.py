"""Microseconds per request of a worker's whole turn but the kernel's part: `python -m bench.turn [--connections N]`.

The protocol of each connection gets its bytes from here and writes into a transport that counts. Everything between is
the product's: head, key, limit, tensors, run, answer, frame, spool. There are no sockets, so it can be asked again and
again in one process: the quickest and the median turn are shown. `--rows 100`: another body; `--mlp`: another model.
`--profile`: where the time goes, by function (cProfile makes all of it slower, small functions most).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.bodies import as_http, as_json
from bench.models import mlp, tree
from bench.servers import published
from bench.staged import worker_of


class CountingTransport:
    """A transport of a connection that is always writable."""

    def __init__(self) -> None:
        self.answers = 0
        self.last = b""

    def write(self, data: bytes) -> None:
        """Counts the answers."""
        self.answers += 1
        self.last = data

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Addresses, and no socket."""
        return ("127.0.0.1", 1) if name in ("sockname", "peername") else default

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        """It stays."""
        return False

    def close(self) -> None:
        """Nothing."""

    pause_reading = resume_reading = close


async def turn(protocols: list[Any], transports: list[CountingTransport], request: bytes) -> float:
    """Seconds of one request of each connection, in one turn of the loop."""
    before = [transport.answers for transport in transports]
    begun = time.perf_counter()
    for protocol in protocols:
        protocol.data_received(request)
    while any(t.answers == had for t, had in zip(transports, before, strict=True)):
        await asyncio.sleep(0)
    return time.perf_counter() - begun


async def measured(data: Path, key: str, request: bytes, connections: int, turns: int, profile: bool) -> list[float]:
    """Seconds of each turn."""
    make = await worker_of(data, set(), key)
    protocols, transports = [], []
    for _ in range(connections):
        protocol, transport = make(), CountingTransport()
        protocol.connection_made(transport)
        protocols.append(protocol)
        transports.append(transport)
    for _ in range(20):
        await turn(protocols, transports, request)
    assert transports[0].last.startswith(b"HTTP/1.1 200"), transports[0].last[:300]
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    took = [await turn(protocols, transports, request) for _ in range(turns)]
    if profiler:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return took


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--mlp", action="store_true")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        model = (mlp if chosen.mlp else tree)(Path(folder))
        key = published(data, {"m": model.path})
        body = as_json(model, chosen.rows, Path(folder))
        request = as_http("http://a/v2/models/m/infer", {"x-api-key": key, **body.headers}, body.path.read_bytes())
        took = uvloop.run(measured(data, key, request, chosen.connections, chosen.turns, chosen.profile))
    each = [seconds / chosen.connections * 1e6 for seconds in took]
    print(f"{min(each):.2f} us a request at best, {statistics.median(each):.2f} in the median of {len(each)} turns")


if __name__ == "__main__":
    main()
