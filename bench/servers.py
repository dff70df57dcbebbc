"""Starts what is measured, pinned to one core, each on a free port; stops it by process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SERVER_CORE, CLIENT_CORE = "0", "1"
START_S = 60


@dataclass(frozen=True)
class Target:
    """Where wrk sends what."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(arguments: list[str], port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A server process on its core, ready when it accepts; stopped at the end."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"it did not start: {' '.join(arguments)}") from None
                time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


@contextmanager
def modelyard(
    folder: Path, model: Path, extra: dict[str, str] | None = None, workers: int = 1, surface: str = "oip"
) -> Iterator[Target]:
    """This server: authentication, a per-client limit that is never reached, and the durable log on."""
    data, port = folder / "data", free_port()
    command = [sys.executable, "-m", "modelyard.cli.main"]
    subprocess.run([*command, "publish", "m", str(model), "--data", str(data)], check=True, capture_output=True)
    made = subprocess.run(
        [*command, "keys", "create", "bench", "--rate", "1000000/s", "--data", str(data), "--json"],
        check=True,
        capture_output=True,
    )
    key = json.loads(made.stdout)["key"]
    serve = [*command, "serve", "--data", str(data), "--port", str(port), "--workers", str(workers)]
    settings = {"MODELYARD_JOURNAL__MAX_SPOOL_BYTES": str(16 * 1024**3), "MODELYARD_LOG__LEVEL": "warning"}
    with started(serve, port, {**settings, **(extra or {})}):
        target = Target(f"http://127.0.0.1:{port}/v2/models/m/infer", {"x-api-key": key})
        _wait_ready(f"http://127.0.0.1:{port}/v2/health/ready")
        yield target


@contextmanager
def fastapi_handler(model: Path) -> Iterator[Target]:
    """The hand-written handler."""
    port = free_port()
    with started([sys.executable, "bench/fastapi_handler.py", str(model), str(port)], port):
        yield Target(f"http://127.0.0.1:{port}/predict")


@contextmanager
def hello() -> Iterator[Target]:
    """uvicorn's bare ASGI hello."""
    port = free_port()
    with started([sys.executable, "bench/hello.py", str(port)], port):
        yield Target(f"http://127.0.0.1:{port}/")


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    raise RuntimeError("it did not become ready")
