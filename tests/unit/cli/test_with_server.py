"""The same commands with a server: what it says over HTTP is what the command says."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from cli_support import parsed
from typer.testing import CliRunner, Result

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.table import KeyTable
from modelyard.cli.main import app
from modelyard.core.errors import ModelyardError
from modelyard.core.settings import RetentionSettings, Settings
from modelyard.http.management import management_app
from modelyard.http.services import Services
from modelyard.http.wire import presented_key
from modelyard.journal.outcomes import OutcomeDesk
from modelyard.journal.ports import SpoolPosition
from modelyard.models.publish import PublishResult
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.sweep import Sweeper
from modelyard.routing.table import RoutingTable
from modelyard.testing import FakeClock, memory_stores, prediction_record, version


class Server:
    """The management routes over fakes on a real socket; predict routes answer with what they were sent."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.stores = memory_stores()
        self.seen: list[tuple[str, bytes, dict[str, bytes]]] = []
        self.files: list[dict[str, bytes]] = []
        issuer = KeyIssuer(self.stores.keys, self.clock)
        self.key = issuer.create("admin", scopes=["admin", "predict"]).text.get_secret_value()
        stores = self.stores
        services = Services(
            settings=Settings(data=folder), clock=self.clock, keys=issuer, key_store=stores.keys, usage=stores.usage,
            endpoints=stores.endpoints, registry=stores.registry, artifacts=stores.artifacts, runtimes={},
            publisher=self, log=stores.log, sink=stores.sink, audit=stores.audit, drain=lambda: 0,
            ping=stores.ping, close=stores.close,
            outcomes=OutcomeDesk(stores.outcomes, lambda ids: {}, self.clock), quarantine=stores.quarantine,
            retention=RetentionDesk(
                Sweeper(stores.retention, stores.leases, RetentionSettings(), self.clock), stores.holds,
                stores.erasures, len, self.clock,
            ),
        )  # fmt: skip
        self._management = management_app(services, self._gate, str, lambda: RoutingTable(0, (), {}))
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, interface="asgi3", log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([listener])), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started and time.monotonic() < deadline:
            threading.Event().wait(0.01)

    def stop(self) -> None:
        """Ends the server."""
        self._server.should_exit = True
        self._thread.join(10)

    def publish(self, model: str, source: Path, name: str | None = None, *_: Any) -> PublishResult:
        """Keeps the files as they came; adds a version whose content they are."""
        files = [source] if source.is_file() else sorted(source.iterdir())
        self.files.append({path.name: path.read_bytes() for path in files})
        made = version(model, name or "1", b"".join(self.files[-1].values()), self.clock.now())
        return PublishResult(made, self.stores.registry.add_version(made))

    async def _gate(self, request: Any) -> Any:
        return KeyTable(self.stores.keys.snapshot()).authenticate(presented_key(request.headers.raw), self.clock.now())

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith(("/infer", "/predictions")) or scope["method"] != "POST":
            await self._management(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append((scope["path"], body, dict(scope["headers"])))
        answer: dict[str, Any] = {"outputs": [{"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        if scope["path"].endswith("/predictions"):
            items = json.loads(body)["items"]
            results = [{"index": n, "output": item} for n, item in enumerate(items)]
            answer = {"prediction_id": f"p{len(self.seen)}", "model": "tree", "version": "1", "results": results}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with one model and three records."""
    running = Server(tmp_path / "server")
    running.stores.registry.add_version(version("tree", "1"))
    records = [prediction_record(f"p{n}", running.clock.now() - n) for n in range(3)]
    running.stores.sink.store(records, SpoolPosition("f", 1))
    yield running
    running.stop()


def run(server: Server, *arguments: str, key: str | None = None, input: bytes | None = None) -> Result:
    """A command with the server."""
    options = ["--server", server.url, "--key", key or server.key]
    return CliRunner().invoke(app, [*arguments, *options], input=input)


def code_of(result: Result) -> str:
    """The code of the refusal that a command ended with."""
    assert isinstance(result.exception, ModelyardError), result.output
    return result.exception.code


def test_management_commands_say_what_the_server_says(server: Server) -> None:
    """Keys, models, traffic and the log, and the server's refusals with their codes."""
    made = parsed(run(server, "keys", "create", "acme", "--rate", "5/s", "--json"))
    assert (made["client"], made["rate"]) == ("acme", "5/s")
    assert code_of(run(server, "keys", "list", key=made["key"])) == "scope_missing"
    assert parsed(run(server, "keys", "revoke", made["id"], "--json"))["state"] == "revoked"
    assert code_of(run(server, "keys", "list", key=made["key"])) == "key_revoked"
    assert code_of(run(server, "keys", "create", "a b")) == "name_invalid"
    assert [m["name"] for m in parsed(run(server, "models", "list", "--json"))["models"]] == ["tree"]
    assert parsed(run(server, "models", "show", "tree", "--version", "1", "--json"))["version"] == "1"
    assert parsed(run(server, "traffic", "set", "tree", "1=100", "--json"))["weights"] == {"1": 100}
    assert code_of(run(server, "traffic", "show", "../x")) == "route_not_found"
    assert parsed(run(server, "predictions", "count", "--model", "tree", "--json")) == {"count": 3}
    page = parsed(run(server, "predictions", "list", "--limit", "2", "--json"))
    assert [record["id"] for record in page["predictions"]] == ["p0", "p1"]
    assert parsed(run(server, "predictions", "show", "p2", "--json"))["id"] == "p2"
    lines = run(server, "predictions", "export").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["p2", "p1", "p0"]


def test_files_and_folders_are_streamed(server: Server, tmp_path: Path) -> None:
    """A file goes as its bytes; with metrics, or as a folder, as an archive; the server sees the same files."""
    model, metrics, folder = tmp_path / "m.onnx", tmp_path / "metrics.json", tmp_path / "folder"
    model.write_bytes(bytes(range(256)) * 4096)
    metrics.write_text('{"accuracy": 1}')
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"folder")
    assert parsed(run(server, "publish", "oak", str(model), "--json"))["created"] is True
    assert parsed(run(server, "publish", "oak", str(model), "--json"))["created"] is False
    assert server.files[0] == {"model.onnx": model.read_bytes()}
    parsed(run(server, "publish", "oak", str(model), "--version", "b", "--metrics", str(metrics), "--json"))
    assert server.files[2]["model.onnx"] == model.read_bytes()
    assert json.loads(server.files[2]["modelyard.json"]) == {"metrics": {"accuracy": 1}}
    parsed(run(server, "publish", "oak", str(folder), "--version", "c", "--json"))
    assert server.files[3] == {"m.onnx": b"folder"}
    assert code_of(run(server, "publish", "oak", str(model), "--version", "c")) == "version_exists"


def test_rows_are_predicted_from_every_form_of_file(server: Server, tmp_path: Path) -> None:
    """CSV and items go a hundred at a time and are numbered through; NPY goes binary; a request goes as it is."""
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n" + "".join(f"{n},{n}.5\n" for n in range(250)))
    answer = parsed(run(server, "predict", "tree", str(rows), "--json"))
    assert [len(json.loads(body)["items"]) for _, body, _ in server.seen] == [100, 100, 50]
    assert answer["results"][249] == {"index": 249, "output": {"a": 249, "b": 249.5}}
    assert answer["prediction_ids"] == ["p1", "p2", "p3"]
    assert "more; --json prints all" in run(server, "predict", "tree", str(rows)).stdout
    np.save(tmp_path / "x.npy", np.array([[1, 2], [3, 4]], np.float64))
    table = run(server, "predict", "tree", str(tmp_path / "x.npy"), "--version", "1").stdout
    path, body, headers = server.seen[-1]
    assert path == "/v2/models/tree/versions/1/infer"
    head = json.loads(body[: int(headers[b"inference-header-content-length"])])
    assert head["inputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(body[-16:], "<f4").tolist() == [1, 2, 3, 4]
    assert "[3,4]" in table
    request = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
    parsed(run(server, "predict", "tree", "-", "--json", input=request))
    assert server.seen[-1][1] == request
    assert code_of(run(server, "predict", "tree", "-", input=b'{"rows": 1}')) == "file_unreadable"
    assert code_of(run(server, "predict", "a/b", "-", input=request)) == "name_invalid"
