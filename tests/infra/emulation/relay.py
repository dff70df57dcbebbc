"""Stands between Terraform's provider and the emulator, and keeps connections open.

The emulator closes every connection after its answer. A client that still reads then loses the answer ("use of closed
network connection"), and the emulating provider asks once only, so one loss in some thousand requests ended an apply.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TIMEOUT_S = 120.0
#: Headers of one connection, not of the message.
OWN = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Relay(BaseHTTPRequestHandler):
    """Hands one request on as it came, and its whole answer back."""

    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server: Server

    def relayed(self) -> None:
        """Ask the emulator and answer with what it says."""
        body = self.body()
        asked = http.client.HTTPConnection(self.server.host, self.server.port, timeout=TIMEOUT_S)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in OWN}
            asked.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
            answer = asked.getresponse()
            text = answer.read()
        finally:
            asked.close()
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(text))
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relayed

    def body(self) -> bytes:
        """The request's body, in chunks or by its length."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the emulator keeps the requests."""


class Server(ThreadingHTTPServer):
    """A relay to one emulator; it takes as many callers at once as a provider opens."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        super().__init__(("127.0.0.1", 0), Relay)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a caller that went away is its own affair, and a lost answer fails at the caller."""


@contextmanager
def relaying(url: str) -> Iterator[str]:
    """The address of a relay to the emulator at `url`, for the duration of the block."""
    server = Server(url)
    thread = threading.Thread(target=server.serve_forever, name="relay", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(TIMEOUT_S)
