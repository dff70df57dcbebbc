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

from bench.bodies import Body

SERVER_CORE, CLIENT_CORE = "0", "1"
START_S = 120
HERE = Path(__file__).parent
SPOOL = str(64 * 1024**3)
MODELYARD = [sys.executable, "-m", "modelyard.cli.main"]


@dataclass(frozen=True)
class Target:
    """Where wrk sends what; `pid` is the first process of the server."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    pid: int = 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    arguments: list[str],
    port: int,
    environment: dict[str, str] | None = None,
    core: str = SERVER_CORE,
    cwd: Path | None = None,
    log: Path | None = None,
) -> Iterator[int]:
    """A server process on its core, ready when it accepts; its pid. Stopped at the end. `log` keeps what it says on
    standard error."""
    with (log or Path(os.devnull)).open("wb") as said:
        process = subprocess.Popen(
            ["taskset", "-c", core, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
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
                time.sleep(0.02)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def publish(data: Path, name: str, path: Path, settings: dict[str, str] | None = None) -> None:
    """Publishes by the command line; `settings` are the command's, as variables."""
    command = [*MODELYARD, "publish", name, str(path), "--data", str(data)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **(settings or {})})


def published(data: Path, models: dict[str, Path]) -> str:
    """A data folder with these models and one client; its key."""
    for name, path in models.items():
        publish(data, name, path)
    made = subprocess.run(
        [*MODELYARD, "keys", "create", "bench", "--rate", "1000000/s", "--data", str(data), "--json"],
        check=True,
        capture_output=True,
    )
    return str(json.loads(made.stdout)["key"])


@contextmanager
def modelyard(
    data: Path, key: str, extra: dict[str, str] | None = None, workers: int = 1, core: str = SERVER_CORE
) -> Iterator[Target]:
    """This server on a folder that `published` made: authentication, a per-client limit that is never reached, and the
    durable log on."""
    port = free_port()
    serve = [*MODELYARD, "serve", "--data", str(data), "--port", str(port), "--workers", str(workers)]
    settings = {"MODELYARD_JOURNAL__MAX_SPOOL_BYTES": SPOOL, "MODELYARD_LOG__LEVEL": "warning"}
    with started(serve, port, {**settings, **(extra or {})}, core) as pid:
        wait_ready(f"http://127.0.0.1:{port}/v2/health/ready")
        yield Target(f"http://127.0.0.1:{port}/v2/models/m/infer", {"x-api-key": key}, pid)


@contextmanager
def staged(data: Path, key: str, without: list[str]) -> Iterator[Target]:
    """The worker alone, with stages taken out (staged.py)."""
    port = free_port()
    with started([sys.executable, str(HERE / "staged.py"), str(data), str(port), *without], port, {"BENCH_KEY": key}):
        yield Target(f"http://127.0.0.1:{port}/v2/models/m/infer", {"x-api-key": key})


@contextmanager
def fastapi_handler(model: Path, *more: Path) -> Iterator[Target]:
    """The hand-written handler; `more` models are loaded beside the one that is asked."""
    port = free_port()
    command = [sys.executable, str(HERE / "fastapi_handler.py"), str(model), str(port), *map(str, more)]
    with started(command, port) as pid:
        yield Target(f"http://127.0.0.1:{port}/predict", pid=pid)


@contextmanager
def hello() -> Iterator[Target]:
    """uvicorn's bare ASGI hello."""
    port = free_port()
    with started([sys.executable, str(HERE / "hello.py"), str(port)], port):
        yield Target(f"http://127.0.0.1:{port}/")


@contextmanager
def granian_hello() -> Iterator[Target]:
    """granian's bare RSGI hello."""
    port = free_port()
    with started([sys.executable, "granian_hello.py", str(port)], port, cwd=HERE):
        yield Target(f"http://127.0.0.1:{port}/")


@contextmanager
def mlserver(python: Path, model: Path, folder: Path) -> Iterator[Target]:
    """MLServer with a custom runtime, in its own environment; no workers (its quickest setting)."""
    port, grpc, metrics = free_port(), free_port(), free_port()
    settings = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    named = {"name": "m", "implementation": "mlserver_runtime.OnnxRuntime", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(named))
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    with started(command, port, {"PYTHONPATH": str(HERE / "peers")}):
        wait_ready(f"http://127.0.0.1:{port}/v2/models/m/ready")
        yield Target(f"http://127.0.0.1:{port}/v2/models/m/infer")


@contextmanager
def bentoml(python: Path, model: Path) -> Iterator[Target]:
    """BentoML with one worker, in its own environment."""
    port = free_port()
    command = [str(python.parent / "bentoml"), "serve", "bentoml_service:Predict", "--port", str(port)]
    with started(command, port, {"BENCH_MODEL": str(model)}, cwd=HERE / "peers"):
        wait_ready(f"http://127.0.0.1:{port}/readyz")
        yield Target(f"http://127.0.0.1:{port}/predict")


def ask(target: Target, body: Body) -> bytes:
    """One request by the standard library; its answer."""
    headers = {**body.headers, **target.headers}
    request = urllib.request.Request(target.url, body.path.read_bytes(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def wait_ready(url: str, headers: dict[str, str] | None = None) -> None:
    """Returns once this address answers 200."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.01)
    raise RuntimeError("it did not become ready")
