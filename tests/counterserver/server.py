"""A throw-away server that counts limits, on a free port. Debian 12 has no Valkey; Redis speaks the same."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import valkey

PATIENCE_S = 20


class CounterServer:
    """`options` are lines of its configuration. It keeps its port over its deaths; `url` is for `limits.url`."""

    def __init__(self, binary: str, folder: Path, options: tuple[str, ...] = (), password: str | None = None) -> None:
        self._binary = binary
        self._folder = folder
        self._options = options
        self._password = password
        self.tls = any(option.startswith("tls-port") for option in options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'rediss' if self.tls else 'valkey'}://127.0.0.1:{self.port}"

    def start(self) -> CounterServer:
        """Starts it; returns once it answers."""
        config = self._folder / "server.conf"
        ports = [f"tls-port {self.port}", "port 0"] if self.tls else [f"port {self.port}"]
        lines = ["bind 127.0.0.1", f"dir {self._folder}", 'save ""', "appendonly no", "daemonize no", *ports]
        lines += [option for option in self._options if not option.startswith("tls-port")]
        lines += [f"requirepass {self._password}"] if self._password else []
        config.write_text("\n".join(lines))
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen([self._binary, str(config)], stdout=log, stderr=log, cwd=self._folder)
        log.close()
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            if self.tls or self._password:
                return True
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
        return False

    def ask(self, *command: Any) -> Any:
        """What it answers to a command."""
        with valkey.Valkey("127.0.0.1", self.port, password=self._password, socket_timeout=PATIENCE_S) as client:
            return client.execute_command(*command)

    def freeze(self) -> None:
        """It keeps its connections and does nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9; what it counted is lost."""
        self._process.kill()
        self._process.wait(PATIENCE_S)


@contextmanager
def counting(*options: str, password: str | None = None) -> Iterator[CounterServer]:
    """A server that runs, and is gone afterwards."""
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        pytest.skip("neither Valkey nor Redis is installed (apt-get install redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="modelyard-counter-"))
    try:
        server = CounterServer(binary, folder, options, password).start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
