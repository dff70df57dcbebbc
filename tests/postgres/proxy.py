"""What lies between a program and its database: a wire that is slow, breaks at a chosen byte, or leads elsewhere."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 60.0
BLOCK_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a close that resets."""


class Proxy:
    """Listens on a free port of the loopback and passes on to `upstream`. All of it may be changed at any time:
    `upstream` holds for connections that come later, `delay_s` lets each block of an answer wait."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.delay_s = 0.0
        self.up_bytes = 0
        self.down_bytes = 0
        self.cut = threading.Event()
        self._cut_up: int | None = None
        self._cut_down: int | None = None
        self._ends: set[socket.socket] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, database: str) -> str:
        """How to reach a database through it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Once so many more bytes have gone up (to the server) or down (from it), their connection is reset; `cut`
        tells that it was. None takes it back."""
        with self._lock:
            self._cut_up, self._cut_down = up, down
            self.cut.clear()

    def close(self) -> None:
        """Cuts everything."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            _reset(end)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(client)

    def _start(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream), PATIENCE_S)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        with self._lock:
            self._ends |= {client, server}
        for source, sink, down in ((client, server, False), (server, client, True)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._pump, args=(source, sink, down), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(BLOCK_BYTES):
                if down and self.delay_s and self._closed.wait(self.delay_s):
                    break
                passed, cut = self._counted(len(block), down)
                sink.sendall(block[:passed])
                if cut:
                    client, server = (sink, source) if down else (source, sink)
                    _reset(client)
                    _close(server)  # what it got it is to read before it learns that nobody is there any more
                    self.cut.set()
                    return
        for end in (source, sink):
            _close(end)

    def _counted(self, size: int, down: bool) -> tuple[int, bool]:
        """How many of these bytes may pass, and whether the wire breaks behind them."""
        with self._lock:
            left = self._cut_down if down else self._cut_up
            cut = left is not None and size >= left
            passed = left if cut and left is not None else size
            if left is not None:
                rest = None if cut else left - size
                self._cut_down, self._cut_up = (rest, self._cut_up) if down else (self._cut_down, rest)
            self.down_bytes += passed * down
            self.up_bytes += passed * (not down)
            return passed, cut


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    _close(end)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def between(upstream: int) -> Iterator[Proxy]:
    """A proxy before a port of the loopback, cut in the end."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
