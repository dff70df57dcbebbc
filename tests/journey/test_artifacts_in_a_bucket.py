"""Artifacts in a bucket, from the publish to the answer; the bucket is an emulator's."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from server import RunningServer, command, until

from objectstore.emulator import Emulator
from objectstore.wire import Fault, wired

Serve = Callable[..., RunningServer]


@pytest.fixture
def bucket(emulator: Emulator) -> str:
    """An empty bucket."""
    return emulator.bucket()


@pytest.fixture
def settings(emulator: Emulator, bucket: str) -> dict[str, str]:
    """The settings of a server on it."""
    return {
        "artifacts.url": f"s3://{bucket}/models",
        "artifacts.endpoint_url": emulator.url,
        "artifacts.connect_timeout_s": "1",
        "artifacts.attempts": "2",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model file."""
    (tmp_path / "m.onnx").write_bytes(trained.cancer().content)
    return tmp_path / "m.onnx"


def variables(settings: dict[str, str]) -> dict[str, str]:
    """The same for a command."""
    return {f"MODELYARD_{name.replace('.', '__').upper()}": value for name, value in settings.items()}


def away() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def predicts(server: RunningServer) -> bool:
    """Whether the model answers."""
    key = server.create_key(f"caller-{server.port}")["key"]
    body = trained.infer_body(X=trained.cancer().rows[:3])
    return server.ask("POST", "/v2/models/cancer/infer", body, key=key).status == 200


def ready(server: RunningServer) -> int:
    """The status of readiness."""
    return server.ask("GET", "/v2/health/ready", key=None).status


def test_published_by_command_and_served_by_two_workers(
    serve: Serve, emulator: Emulator, bucket: str, settings: dict[str, str], file: Path
) -> None:
    """P5: the command puts the files into the bucket, nothing into the folder; two workers fetch them once, and
    answer. After the loss of the cache, the next start fetches them again."""
    server = serve(workers=2, settings=settings)
    done = command("publish", "cancer", file, "--data", server.data, env=variables(settings))
    assert done.returncode == 0, done.stderr
    assert len(emulator.keys(bucket)) == 2
    until(lambda: ready(server) == 200, 20, "ready")
    assert predicts(server)
    assert len(server.events("artifact.fetched")) == 1
    assert list((server.data / "artifacts").rglob("*.onnx")) == []
    assert len(list((server.data / "artifact-cache").rglob("*.onnx"))) == 1
    server.stop()
    shutil.rmtree(server.data / "artifact-cache")
    again = serve(workers=1, settings=settings)
    again.key = server.key
    until(lambda: ready(again) == 200, 20, "ready")
    assert len(again.events("artifact.fetched")) == 1
    assert predicts(again)


def test_published_over_http(serve: Serve, emulator: Emulator, bucket: str, settings: dict[str, str]) -> None:
    """The server puts what it was sent into the bucket, and serves it."""
    server = serve(settings=settings)
    assert server.publish("cancer", trained.cancer().content).status == 201
    assert len(emulator.keys(bucket)) == 2
    assert predicts(server)


def test_the_store_is_away_at_the_start(serve: Serve, settings: dict[str, str], file: Path, tmp_path: Path) -> None:
    """F8 P9 P11: with the versions in the cache a start serves them, and a publish gets 503 with a reason; without
    them it is alive, not ready, and its log says why, without an address."""
    server = serve(settings=settings)
    assert server.publish("cancer", trained.cancer().content).status == 201
    assert predicts(server)
    server.stop()
    gone = {**settings, "artifacts.endpoint_url": away()}
    alone = serve(settings=gone)
    alone.key = server.key
    until(lambda: ready(alone) == 200, 20, "ready")
    assert predicts(alone)
    refused = alone.publish("digits", trained.digits().content)
    assert (refused.status, refused.json["code"], refused.json["detail"]["reason"]) == (
        503,
        "store_unavailable",
        "unreachable",
    )
    assert int(refused.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in refused.body.decode()
    done = command("publish", "digits", file, "--data", alone.data, env=variables(gone))
    assert done.returncode == 6
    assert "cannot be reached" in done.stderr
    alone.stop()
    shutil.rmtree(alone.data / "artifact-cache")
    empty = serve(settings=gone)
    (failed,) = until(lambda: empty.events("model.load_failed"), 20, "the failure")[:1]
    assert failed["code"] == "store_unavailable"
    assert "cannot be reached" in failed["reason"]
    assert ready(empty) == 503
    assert empty.ask("GET", "/v2/health/live", key=None).status == 200


def test_doctor(emulator: Emulator, settings: dict[str, str], tmp_path: Path) -> None:
    """The bucket answers; a bucket that is missing, a store that is away, and an address without TLS are problems with
    a remedy. Nothing is made in the folder."""
    cases = {
        "answers": {},
        "does not exist": {"artifacts.url": "s3://no-such-bucket-here/x"},
        "cannot be reached": {"artifacts.endpoint_url": away()},
        "plain HTTP": {"artifacts.endpoint_url": "http://192.0.2.1"},
    }
    for words, more in cases.items():
        env = variables({**settings, **more})
        done = command("doctor", "--data", tmp_path / "data", "--port", "0", "--json", env=env)
        said = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
        assert words in said["artifacts"]["said"], said["artifacts"]
        assert done.returncode == (0 if words == "answers" else 1)
        assert said["artifacts"]["state"] == ("ok" if words == "answers" else "problem")
        assert bool(said["artifacts"]["remedy"]) == (words != "answers")
        assert said["artifact cache"]["said"]
    assert not (tmp_path / "data").exists()


def test_a_stop_in_the_middle_of_a_fetch(
    serve: Serve, emulator: Emulator, settings: dict[str, str], file: Path, tmp_path: Path
) -> None:
    """K9: a server told to stop while a version trickles in ends in order and in time, and leaves nothing half; a key
    that is revoked meanwhile is refused all the same."""
    data = tmp_path / "data"
    done = command("publish", "cancer", file, "--data", data, env=variables(settings))
    assert done.returncode == 0, done.stderr
    with wired(emulator.port) as wire:
        wire.plan = lambda request: Fault("drip", 500) if b"/model.onnx HTTP" in request else None
        server = serve(settings={**settings, "artifacts.endpoint_url": wire.url})
        until(lambda: wire.ranges, 20, "fetching")
        made = server.create_key("caller")
        until(lambda: server.ask("GET", "/v1/me", key=made["key"]).status == 200, 10, "the key")
        assert server.ask("DELETE", f"/v1/keys/{made['id']}").status < 300
        until(lambda: server.ask("GET", "/v1/me", key=made["key"]).status == 401, 10, "the revocation")
        assert ready(server) == 503
        server.stop()
        assert server.events("artifact.fetched") == []
    assert list((data / "artifact-cache").glob("??/*")) == []
