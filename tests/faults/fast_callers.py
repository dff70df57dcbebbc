"""Callers for long runs, a process of their own: `python fast_callers.py PORT KEY BODIES CONNECTIONS SEED OUT`.

BODIES is a file with one JSON body a line; each connection asks for one after the other, in an order of its own. At
SIGTERM it writes OUT: one line `id row digest` for each prediction whose 200 was read to its last byte (the digest of
the answer's numbers for one in SAMPLE, else `-`), and a last line of counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import sys
from pathlib import Path

import orjson
import uvloop

SAMPLE = 20
PATIENCE_S = 0.05


class Run:
    """What all connections share."""

    def __init__(self, port: int, key: str, bodies: list[bytes]) -> None:
        self.port = port
        head = "POST /v2/models/cancer/infer HTTP/1.1\r\nhost: a\r\nx-api-key: %s\r\ncontent-length: %d\r\n\r\n"
        self.requests = [(head % (key, len(one))).encode() + one for one in bodies]
        self.acknowledged: list[str] = []
        self.counts = {"sent": 0, "acknowledged": 0, "cut": 0, "refused": 0, "closed": 0}
        self.over = False


class Connection(asyncio.Protocol):
    """One connection: one request after the other."""

    def __init__(self, run: Run, chance: random.Random) -> None:
        self.run = run
        self.chance = chance
        self.buffer = b""
        self.owed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        if self.run.over:
            self.transport.close()
            return
        self.row = self.chance.randrange(len(self.run.requests))
        self.run.counts["sent"] += 1
        self.owed = True
        self.transport.write(self.run.requests[self.row])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        if len(rest) < size:
            return
        self.buffer = b""
        self.owed = False
        if head[9:12] == b"200":
            self.note(fields[b"x-prediction-id"].decode(), rest)
        else:
            self.run.counts["refused"] += 1
        if fields.get(b"connection") == b"close":
            self.run.counts["closed"] += 1
            self.transport.close()
        elif head[9:12] == b"200":
            self.ask()
        else:
            asyncio.get_running_loop().call_later(PATIENCE_S, self.ask)

    def note(self, prediction: str, body: bytes) -> None:
        kept = self.run.acknowledged
        digest = "-"
        if len(kept) % SAMPLE == 0:
            outputs = {output["name"]: output["data"] for output in orjson.loads(body)["outputs"]}
            digest = digest_of(outputs["probabilities"])
        self.run.counts["acknowledged"] += 1
        kept.append(f"{prediction} {self.row} {digest}")

    def connection_lost(self, error: Exception | None) -> None:
        if self.owed:
            self.run.counts["cut"] += 1
        if not self.run.over:
            asyncio.get_running_loop().create_task(connect(self.run, self.chance))


def digest_of(numbers: list[float]) -> str:
    """The same from an answer and from the log."""
    flat = [float(n) for part in numbers for n in (part if isinstance(part, list) else [part])]
    return hashlib.sha256(json.dumps(flat).encode()).hexdigest()[:16]


async def connect(run: Run, chance: random.Random) -> None:
    """Until somebody accepts."""
    loop = asyncio.get_running_loop()
    while not run.over:
        try:
            await loop.create_connection(lambda: Connection(run, chance), "127.0.0.1", run.port)
        except OSError:
            run.counts["cut"] += 1
            await asyncio.sleep(PATIENCE_S)
        else:
            return


async def main() -> None:
    """Asks until SIGTERM."""
    port, key, bodies, connections, seed, out = sys.argv[1:]
    run = Run(int(port), key, Path(bodies).read_bytes().splitlines())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(connect(run, random.Random(f"{seed}-{n}")) for n in range(int(connections))))
    print("asking", flush=True)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except TimeoutError:
            print(json.dumps(run.counts), flush=True)
    run.over = True
    await asyncio.sleep(1.0)
    Path(out).write_text("\n".join([*run.acknowledged, json.dumps(run.counts)]) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
