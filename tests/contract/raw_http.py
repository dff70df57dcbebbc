"""A caller that controls every byte: raw requests out, parsed answers in."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    target: str,
    body: bytes | str = b"",
    *,
    key: str | None = None,
    method: str = "POST",
    headers: Iterable[str] = (),
    version: str = "1.1",
    length: int | None = None,
) -> bytes:
    """A request's bytes; `length` overrides Content-Length, -1 leaves it out."""
    payload = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {target} HTTP/{version}", "host: test"]
    if key is not None:
        lines.append(f"x-api-key: {key}")
    if length != -1:
        lines.append(f"content-length: {len(payload) if length is None else length}")
    lines += headers
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + payload


class Caller:
    """One connection, over TLS if a context is given; `opened` lists all of a test's, for `close_all`."""

    opened: ClassVar[list[Caller]] = []

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        Caller.opened.append(self)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, head: bool = False) -> Reply:
        """The next answer; AssertionError if the connection ends first. `head`: it has no body."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._more(), f"the connection ended with {self.buffer!r}"
        top, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = int(lines[0].split(" ")[1])
        if status == 100:
            return Reply(100, headers, b"")
        size = 0 if head else int(headers.get("content-length", "0"))
        while len(self.buffer) < size:
            assert self._more(), "the connection ended inside a body"
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return Reply(status, headers, body)

    def at_end(self) -> bool:
        """Whether the server closes without another byte."""
        return not self.buffer and not self._more()

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    @classmethod
    def close_all(cls) -> None:
        """Closes what a test opened, also one that failed."""
        while cls.opened:
            cls.opened.pop().close()


def until(condition: Any, within_s: float = DEADLINE_S) -> None:
    """Waits for a condition, bounded."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)
