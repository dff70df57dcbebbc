"""A real server that is going to be killed, callers that remember what was acknowledged, and the check at the end."""

from __future__ import annotations

import atexit
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
PATIENCE_S = 0.05
"""How long a caller waits before it tries a server again that refused or vanished."""


def until(condition: Callable[[], Any], within_s: float, what: str) -> float:
    """Waits until it is true; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_s, f"{what}: not within {within_s:g} s"
        time.sleep(0.01)
    return time.monotonic() - begun


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def age_s(pid: int) -> float:
    """How long the process has been there; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Table:
    """Rows of a real table, the model trained on them as ONNX, and what it says of each row."""

    content: bytes
    rows: Any
    expected: Any


@cache
def breast_cancer() -> Table:
    """Logistic regression of scikit-learn's breast-cancer table: 569 rows, 30 columns."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_breast_cancer(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(rows, labels)
    rows = rows.astype(np.float32)
    made = to_onnx(fitted, rows[:1], options={"zipmap": False}, target_opset=17)
    made.ir_version = 9
    content = made.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Table(content, rows, session.run(["probabilities"], {"X": rows})[0])


class Server:
    """`modelyard serve --workers 2` on one folder and one port, started again as often as needed."""

    def __init__(self, folder: Path, workers: int = 2, settings: Mapping[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.port = free_port()
        self.workers = workers
        self.family: list[int] = []
        self._folder = folder
        kept = {name: text for name, text in os.environ.items() if not name.startswith("MODELYARD_")}
        # Killed from outside in the middle of a run: that is the test's doing, not the version's.
        ours = {"MODELYARD_HTTP__DRAIN_DELAY_S": "0.2", "MODELYARD_MODELS__UNHEALTHY_DEATHS": "1000000"}
        self._env = {**kept, **ours, **(settings or {})}

    def command(self, *arguments: str | Path) -> bytes:
        """`modelyard ARGUMENTS --data …` to its end; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "modelyard.cli.main", *map(str, arguments), "--data", str(self.data)],
            env=self._env, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def prepare(self, content: bytes) -> str:
        """Publishes the model as `cancer` and makes a key; the same model a second time is a copy of that folder."""
        known = _prepared.get(content)
        if known is None:
            known = _prepared[content] = (self.publish(content), Path(tempfile.mkdtemp(prefix="modelyard-prepared-")))
            shutil.copytree(self.data, known[1] / "data")
        else:
            shutil.copytree(known[1] / "data", self.data)
        return known[0]

    def publish(self, content: bytes) -> str:
        """Publishes the model as `cancer` and makes a key."""
        model = self._folder / "model.onnx"
        model.write_bytes(content)
        self.command("publish", "cancer", model)
        made = json.loads(self.command("keys", "create", "tester", "--rate", "1000000/s", "--json"))
        return str(made["key"])

    def start(self, within_s: float = START_WITHIN_S) -> None:
        """Starts it and waits until it is ready."""
        self.begin()
        until(self.accepts, within_s, "the server starts")

    def begin(self) -> None:
        """Starts it and waits for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.cli.main", "serve", "--data", str(self.data),
                 "--port", str(self.port), "--workers", str(self.workers)],
                env=self._env, stdout=log, stderr=log,
            )  # fmt: skip

    def accepts(self) -> bool:
        """Whether the server answers that it is ready."""
        assert self.process.poll() is None, f"the server ended: {self.log.read_text()[-3000:]}"
        return self.ready()

    def ready(self) -> bool:
        """What readiness says; False if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        except http.client.HTTPException:
            return False
        finally:
            connection.close()

    def worker_pids(self) -> list[int]:
        """The worker processes."""
        return self._children("modelyard.entry.worker")

    def drain_pids(self) -> list[int]:
        """The drain's process, if it runs."""
        return self._children("modelyard.entry.drain")

    def started(self) -> int:
        """How many workers said so far that they accept."""
        return self.log.read_text().count('"event":"worker.started"')

    def _children(self, module: str) -> list[int]:
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [child for child in map(int, children) if alive(child) and module in _command_line(child)]

    def kill(self) -> None:
        """SIGKILL to the parent."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_WITHIN_S)

    def end(self) -> None:
        """Leaves nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.kill()


_prepared: dict[bytes, tuple[str, Path]] = {}
atexit.register(lambda: [shutil.rmtree(folder) for _, folder in _prepared.values()])


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def digest(values: Any) -> str:
    """A hash of an answer's numbers, the same from the answer and from the log."""
    return hashlib.sha256(json.dumps(np.asarray(values, float).ravel().tolist()).encode()).hexdigest()


@dataclass
class Callers:
    """Threads that ask again at once, or after a pause, each on its own connection; `acknowledged` holds the row and
    the hash of the answer of each prediction whose 200 was read to its last byte."""

    server: Server
    key: str
    table: Table
    threads: int = 4
    seed: int = 0
    pause_s: float = 0.0
    acknowledged: dict[str, tuple[int, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    requests: int = 0
    cut: int = 0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._running = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(self.threads)]

    def start(self) -> None:
        """Begins."""
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        """Ends, after the answers that are under way."""
        self._over.set()
        for thread in self._running:
            thread.join(30)
            assert not thread.is_alive()

    def _ask(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not self._over.is_set():
            row = chance.randrange(len(self.table.rows))
            try:
                self._one(connection, row)
                self._over.wait(self.pause_s)
            except (OSError, http.client.HTTPException):
                connection.close()
                with self._lock:
                    self.cut += 1
                self._over.wait(PATIENCE_S)
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, row: int) -> None:
        values = self.table.rows[row].tolist()
        body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, len(values)], "data": values}]}
        with self._lock:
            self.requests += 1
        connection.request("POST", "/v2/models/cancer/infer", json.dumps(body), {"x-api-key": self.key})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            self._over.wait(PATIENCE_S)
            return
        outputs = {output["name"]: output["data"] for output in json.loads(text)["outputs"]}
        given = outputs["probabilities"]
        prediction = answer.headers["x-prediction-id"]
        with self._lock:
            if prediction in self.acknowledged:
                self.wrong.append(f"{prediction} was given twice")
            if not np.allclose(given, self.table.expected[row], atol=1e-5):
                self.wrong.append(f"{prediction} is not the answer to row {row}")
            self.acknowledged[prediction] = (row, digest(given))


@dataclass(frozen=True)
class Books:
    """What the log says, compared with what callers were told."""

    logged: int
    twice: list[str]
    missing: list[str]
    different: list[str]


def balance(server: Server, callers: Callers, out: Path) -> Books:
    """Exports the log of a stopped server and compares it, prediction by prediction."""
    server.command("predictions", "export", "--format", "jsonl", "--status", "2", "--out", out)
    logged: dict[str, str] = {}
    twice: list[str] = []
    different: list[str] = []
    with out.open() as lines:
        for line in lines:
            record = json.loads(line)
            if record["id"] in logged:
                twice.append(record["id"])
            logged[record["id"]] = digest(record["outputs"]["probabilities"])
            told = callers.acknowledged.get(record["id"])
            if told is not None and (logged[record["id"]] != told[1] or not _same_row(record, callers.table, told[0])):
                different.append(record["id"])
    return Books(len(logged), twice, [one for one in callers.acknowledged if one not in logged], different)


def _same_row(record: Mapping[str, Any], table: Table, row: int) -> bool:
    kept = record["inputs"]["X"][0]
    values = list(kept.values()) if isinstance(kept, dict) else kept
    return bool(np.array_equal(np.asarray(values, np.float32), table.rows[row]))
