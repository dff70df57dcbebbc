"""A wire to the object store that can be cut, silenced or slowed: a small TCP proxy."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TIMEOUT_S = 30.0
BLOCK_BYTES = 64 * 1024
RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)
CONTINUE = b" 100 "
"""Where it stands in an answer's head, no answer yet: the body has still to be sent."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a close that resets."""


@dataclass(frozen=True)
class Fault:
    """What happens to one connection: after so many bytes of the answer (or of the request, `up`) it is cut, reset
    (what is under way is lost), falls silent, or goes on byte by byte."""

    what: str
    after_bytes: int
    up: bool = False


Plan = Callable[[bytes], Fault | None]
"""The fault of a connection, by the beginning of its request; None passes everything."""


class Wire:
    """Listens on a free port of the loopback. `plan` may be replaced at any time."""

    def __init__(self, upstream: int) -> None:
        self.plan: Plan = lambda request: None
        self.connections = 0
        self.ranges: list[tuple[int, int]] = []
        self.down_bytes = 0
        self._upstream = upstream
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Cuts everything."""
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._carry, client)

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _carry(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(TIMEOUT_S)
            first = client.recv(BLOCK_BYTES)
            if not first:
                return
            with self._lock:
                self.ranges += [(int(found[1]), int(found[2])) for found in RANGE.finditer(first)]
                fault = self.plan(first)
            with socket.create_connection(("127.0.0.1", self._upstream), TIMEOUT_S) as server:
                up = fault if fault is not None and fault.up else None
                down = fault if fault is not None and not fault.up else None
                other = self._start(self._pump, client, server, first, up)
                self._pump(server, client, b"", down, counted=True)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                other.join(TIMEOUT_S)

    def _pump(
        self, source: socket.socket, sink: socket.socket, block: bytes, fault: Fault | None, counted: bool = False
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while block := block or source.recv(BLOCK_BYTES):
                if block[8:13] == CONTINUE:
                    head, _, block = block.partition(b"\r\n\r\n")
                    sink.sendall(head + b"\r\n\r\n")
                    continue
                if fault is not None and passed + len(block) > fault.after_bytes:
                    sink.sendall(block[: fault.after_bytes - passed])
                    self.down_bytes += (fault.after_bytes - passed) * counted
                    self._break(fault.what, source, sink, block[fault.after_bytes - passed :])
                    return
                sink.sendall(block)
                passed += len(block)
                self.down_bytes += len(block) * counted
                block = b""

    def _break(self, what: str, source: socket.socket, sink: socket.socket, rest: bytes) -> None:
        if what == "drip":
            for byte in rest:
                if self._closed.wait(0.05):
                    return
                sink.sendall(bytes([byte]))
        elif what == "silence":
            self._closed.wait(TIMEOUT_S)
        for end in (source, sink):
            if what == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def wired(upstream: int) -> Iterator[Wire]:
    """A wire to a port of the loopback, cut in the end."""
    wire = Wire(upstream)
    try:
        yield wire
    finally:
        wire.close()


def first(count: int, fault: Fault, where: bytes = b"") -> Plan:
    """The fault for the first `count` connections whose request holds `where`."""
    left = [count]

    def plan(request: bytes) -> Fault | None:
        if where not in request or left[0] == 0:
            return None
        left[0] -= 1
        return fault

    return plan
