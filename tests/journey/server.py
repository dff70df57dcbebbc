"""A real server as its users meet it: started by the command line, spoken with over its socket, stopped by signal."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from modelyard.core.events import Event

START_WITHIN_S = 30.0
STOP_WITHIN_S = 30.0
ANSWER_WITHIN_S = 20.0
KEY_TEXT = re.compile(r"mdy_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")
VOCABULARY = {str(event) for event in Event}


@dataclass(frozen=True)
class Reply:
    """One answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def until(condition: Callable[[], Any], within_s: float = 10.0, what: str = "it") -> Any:
    """The first true value of `condition`, asked again until then; AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not become true within {within_s:g} s"
        time.sleep(0.01)
    return found


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without any MODELYARD_* of the caller, and with `more`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MODELYARD_")}
    return {**kept, "COLUMNS": "160", **(more or {})}


def command(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`modelyard ARGUMENTS` in a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *map(str, arguments)],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class RunningServer:
    """`modelyard serve` on a free port. `key` is the administrator's; `stop` asserts that it ended in order."""

    def __init__(
        self,
        data: Path,
        *,
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        ca: Path | None = None,
    ) -> None:
        """`settings` are dotted names, given by the environment; `ca` is whose certificates are trusted."""
        self.data = data
        given = {"http.drain_delay_s": "0.2", **(settings or {})}
        self._env = clean_environment({f"MODELYARD_{name.replace('.', '__').upper()}": v for name, v in given.items()})
        self._arguments = [
            sys.executable, "-m", "modelyard.cli.main", "serve",
            "--data", str(data), "--port", "0", "--workers", str(workers), *arguments,
        ]  # fmt: skip
        self._given_key = given.get("auth.admin_key")
        self._out, self._log = data.parent / f"{data.name}.out", data.parent / f"{data.name}.log"
        self._trusted = {} if ca is None else {"ca_certs": str(ca)}
        self.pool = urllib3.PoolManager(retries=False, maxsize=64, **self._trusted)
        self.secrets: set[str] = set()
        self.url = self.key = ""

    def start(self) -> RunningServer:
        """Starts it and waits until it accepts."""
        self._log.write_bytes(b"")
        # Appended to: what is left of a killed server may write to the same file for a moment.
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, env=self._env, stdout=out, stderr=log)
        until(self._accepts, START_WITHIN_S, "accepting")
        shown = KEY_TEXT.search(self.output)
        self.key = self._given_key or (shown[0] if shown else "")
        self.secrets.add(self.key)
        return self

    def _accepts(self) -> bool:
        assert self.process.poll() is None, f"it ended: {self.output}{self._log.read_text()}"
        found = re.search(r"Serving on (https?://\S+)", self.output)
        self.url = found[1] if found else ""
        return bool(found)

    @property
    def output(self) -> str:
        """What it printed for people so far."""
        return self._out.read_text()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The event log so far; every line is one JSON object of the vocabulary, without a secret."""
        text = self._log.read_text()
        assert not any(secret in text for secret in self.secrets if secret), "a secret is in the log"
        assert not KEY_TEXT.search(text)
        foreign = [line for line in text.splitlines() if not line.startswith("{")]
        assert not foreign, f"no events are in the log: {foreign}"
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line["event"] for line in lines} <= VOCABULARY
        return [line for line in lines if name in (None, line["event"])]

    def worker_pids(self) -> list[int]:
        """The worker processes, oldest first."""
        return self._children("modelyard.entry.worker")

    def drain_pids(self) -> list[int]:
        """The drain's process."""
        return self._children("modelyard.entry.drain")

    def _children(self, module: str) -> list[int]:
        pid = self.process.pid
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return sorted(child for child in children if module.encode() in _command_line(child))

    @contextmanager
    def every_worker(self) -> Iterator[dict[int, http.client.HTTPConnection]]:
        """An open connection to each worker, by its process id: new ones are opened until each has accepted one."""
        found: dict[int, http.client.HTTPConnection] = {}
        workers = set(self.worker_pids())
        deadline = time.monotonic() + 10
        with ExitStack() as opened:
            while set(found) != workers:
                assert time.monotonic() < deadline, "a worker accepts no connection"
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_WITHIN_S)
                opened.callback(connection.close)
                connection.request("GET", "/v2/health/live")
                connection.getresponse().read()
                found[next(pid for pid in workers if _inode(connection, self.port) in _sockets(pid))] = connection
            yield found

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        headers: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Reply:
        """One request. `body` that is no bytes is sent as JSON; `key` "" is the administrator's, None sends none;
        `fresh` takes a new connection."""
        fields = dict(headers or {})
        if key is not None:
            fields["x-api-key"] = key or self.key
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        pool = urllib3.PoolManager(retries=False, **self._trusted) if fresh else self.pool
        try:
            answer = pool.request(
                method, self.url + path, body=body, headers=fields, timeout=ANSWER_WITHIN_S, redirect=False
            )
            return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data)
        finally:
            if fresh:
                pool.clear()

    def publish(self, model: str, content: bytes, version: str | None = None) -> Reply:
        """Publishes one file over HTTP."""
        path = f"/v1/models/{model}/versions"
        named = {"x-modelyard-filename": "model.onnx", "content-type": "application/octet-stream"}
        if version is None:
            return self.ask("POST", path, content, headers=named)
        return self.ask("PUT", f"{path}/{version}", content, headers=named)

    def create_key(self, client: str, **asked: Any) -> dict[str, Any]:
        """Issues a key: `{"id", "key", …}`."""
        reply = self.ask("POST", "/v1/keys", {"client": client, **asked})
        assert reply.status == 201, reply.body
        self.secrets.add(reply.json["key"])
        made: dict[str, Any] = reply.json
        return made

    def set_traffic(self, endpoint: str, **weights: int) -> Reply:
        """Replaces an endpoint's shares; versions as `v1=100`."""
        shares = {version.removeprefix("v"): share for version, share in weights.items()}
        return self.ask("PUT", f"/v1/endpoints/{endpoint}/traffic", {"weights": shares})

    def count(self, **filters: str) -> int:
        """How many records of the log match."""
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        return int(self.ask("GET", f"/v1/predictions/count?{query}").json["count"])

    def signal(self, number: signal.Signals) -> None:
        """Sends the parent a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(STOP_WITHIN_S)

    def stop(self) -> float:
        """SIGTERM, then exit status 0, and a clean log; the seconds it took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            status = self.wait()
        finally:
            self.end()
        assert status == 0, self._log.read_text()[-3000:]
        assert self.events()
        return time.monotonic() - begun

    def end(self) -> None:
        """Leaves nothing behind, whatever happened."""
        self.pool.clear()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def _inode(connection: http.client.HTTPConnection, port: int) -> str:
    """The number of the server's end of a local connection."""
    wanted = f":{port:04X}", f":{connection.sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            return fields[9]
    raise AssertionError("the connection is closed")


def _sockets(pid: int) -> set[str]:
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    return {link[8:-1] for link in links if link.startswith("socket:")}
