"""Publishing: by command on a folder, by command on a server, over HTTP; and what gets traffic."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trained
from server import RunningServer, command

Serve = Callable[..., RunningServer]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_empty_then_ready(serve: Serve, tmp_path: Path) -> None:
    """An empty server is alive and not ready, says why, and gets ready by a publish to its folder, which the answer
    of the command already includes."""
    server = serve(workers=2)
    before = server.ask("GET", "/v2/health/ready", key=None)
    assert (before.status, before.json["ready"], before.json["live"]) == (503, False, True)
    assert "no model" in before.json["error"]
    assert int(before.headers["retry-after"]) >= 1
    assert server.ask("GET", "/v2/health/live", key=None).json == {"live": True}
    done = command("publish", "cancer", write(tmp_path, "m.onnx", trained.cancer().content), "--data", server.data)
    assert done.returncode == 0, done.stderr
    with server.every_worker() as connections:
        for connection in connections.values():
            connection.request("GET", "/v2/health/ready")
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {"ready": True, "live": True})


def test_ready_when_empty_may_be_chosen(serve: Serve) -> None:
    """`http.ready_when_empty` makes a server without models ready."""
    assert serve(settings={"http.ready_when_empty": "true"}).ask("GET", "/v2/health/ready", key=None).status == 200


def test_folder_without_a_server(serve: Serve, tmp_path: Path) -> None:
    """What was published and issued on a folder without a server is served by the next start."""
    file, data = write(tmp_path, "m.onnx", trained.cancer().content), tmp_path / "data"
    assert command("publish", "cancer", file, "--data", data).returncode == 0
    made = json.loads(command("keys", "create", "early", "--data", data, "--json").stdout)
    server = serve()
    server.secrets.add(made["key"])
    body = trained.infer_body(X=trained.cancer().rows[:3])
    reply = server.ask("POST", "/v2/models/cancer/infer", body, key=made["key"])
    assert reply.status == 200
    assert reply.headers["x-model-version"] == "1"


def test_same_bytes_and_other_bytes(server: RunningServer, tmp_path: Path) -> None:
    """The same bytes again are 200 and change nothing; other bytes under the same version are 409; the command says
    both with exit codes 0 and 5."""
    first = server.publish("tree", trained.cancer().content, "a.1")
    again = server.publish("tree", trained.cancer().content, "a.1")
    other = server.publish("tree", trained.digits().content, "a.1")
    assert (first.status, first.json["created"]) == (201, True)
    assert (again.status, again.json["created"]) == (200, False)
    assert again.json["digest"] == first.json["digest"]
    assert (other.status, other.json["code"]) == (409, "version_exists")
    where = ("--server", server.url, "--key", server.key, "--version", "a.1")
    same = command("publish", "tree", write(tmp_path, "model.onnx", trained.cancer().content), *where, "--json")
    assert (same.returncode, json.loads(same.stdout)["created"]) == (0, False)
    clash = command("publish", "tree", write(tmp_path, "other.onnx", trained.digits().content), *where)
    assert clash.returncode == 5
    assert "version_exists" in clash.stderr


def test_later_versions_wait_for_traffic(server: RunningServer, client_key: str, tmp_path: Path) -> None:
    """A model's first version gets all traffic; the next, published by command, none until `traffic set` says so;
    both answer when asked by name. The answers are those of the version that is named in them."""
    one, two = trained.cancer(1.0), trained.cancer(0.01)
    where = ("--server", server.url, "--key", server.key)
    for version, classifier in (("1", one), ("2", two)):
        file = write(tmp_path, f"{version}.onnx", classifier.content)
        assert command("publish", "later", file, "--version", version, *where).returncode == 0
    body = trained.infer_body(X=one.rows[:5])

    def answers(path: str, version: str) -> bool:
        reply = server.ask("POST", path, body, key=client_key)
        assert (reply.status, reply.headers["x-model-version"]) == (200, version)
        assert reply.json["model_version"] == version
        data = next(output["data"] for output in reply.json["outputs"] if output["name"] == "probabilities")
        expected = (one if version == "1" else two).probabilities[:5].ravel()
        return np.allclose(np.array(data, np.float32), expected, atol=1e-6)

    assert answers("/v2/models/later/infer", "1")
    assert answers("/v2/models/later/versions/2/infer", "2")
    set_to = command("traffic", "set", "later", "2=100", *where)
    assert set_to.returncode == 0, set_to.stderr
    assert answers("/v2/models/later/infer", "2")
    assert answers("/v2/models/later/versions/1/infer", "1")
    shown = json.loads(command("traffic", "show", "later", *where, "--json").stdout)
    assert shown["weights"] == {"2": 100}


def test_folder_as_tar(server: RunningServer) -> None:
    """A folder travels as a tar archive with `modelyard.json`: its metrics are shown, its example is tried."""
    archive = io.BytesIO()
    manifest = {"metrics": {"accuracy": 0.97}, "example": trained.infer_body(X=trained.cancer().rows[:1])}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (
            ("model.onnx", trained.cancer().content),
            ("modelyard.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    headers = {"content-type": "application/x-tar"}
    reply = server.ask("POST", "/v1/models/packed/versions", archive.getvalue(), headers=headers)
    assert reply.status == 201, reply.body
    assert reply.json["metrics"] == {"accuracy": 0.97}
    assert [file["path"] for file in reply.json["files"]] == ["model.onnx"]


def test_refused_models_leave_nothing(server: RunningServer) -> None:
    """Empty, truncated and foreign bytes, and names that climb, are refused in our form; no version, no model, no
    staged file remains, and the server answers on."""
    good = trained.cancer().content
    cases = {
        "empty": (b"", {"model_empty"}),
        "truncated": (good[: len(good) // 2], {"model_unreadable"}),
        "foreign": (b"#!/bin/sh\necho no\n" * 20, {"format_unknown", "model_unreadable"}),
        "pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", {"format_not_allowed", "format_unknown"}),
    }
    for model, (content, codes) in cases.items():
        reply = server.publish(model, content)
        assert (reply.status, reply.json["code"] in codes) == (422, True), (model, reply.body)
        assert set(reply.json) == {"error", "code", "detail", "request_id"}
        assert server.ask("GET", f"/v1/models/{model}").status == 404
    for path in ("/v1/models/..%2Fx/versions", "/v1/models/../x/versions", "/v1/models/.x/versions"):
        reply = server.ask("POST", path, good)
        assert reply.status in (400, 404)
        assert reply.json["request_id"] == reply.headers["x-request-id"]
    staged = server.data / "staging"
    assert not staged.exists() or list(staged.iterdir()) == []
    assert server.ask("GET", "/v2/health/ready", key=None).status == 200
