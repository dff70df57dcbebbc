"""From a laptop to PostgreSQL and a bucket, the whole way: the wire is cut once, the copy is called again, and a server
on the other side answers as the first one did. The bucket is an emulator's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import trained
from server import RunningServer, command

from objectstore.emulator import Emulator
from objectstore.wire import Fault, wired
from postgres.server import Server

Serve = Callable[..., RunningServer]
MODELS = {("cancer", "1"): 1.0, ("cancer", "2"): 0.01}
PREDICTIONS = 40
PASSES_BYTES = 8_000
"""So much of the second model goes through before the wire is cut: half of it."""


def filled(server: RunningServer) -> tuple[str, list[str], dict[str, object]]:
    """Two versions, predictions, one outcome; a key, the predictions' ids, and the answers."""
    for (model, version), strength in MODELS.items():
        assert server.publish(model, padded(strength), version).status == 201
    key = server.create_key("acme", rate="1000000/s")["key"]
    ids: list[str] = []
    for number in range(PREDICTIONS):
        body = trained.infer_body(X=trained.cancer().rows[number : number + 1])
        reply = server.ask("POST", "/v2/models/cancer/infer", body, key=key)
        assert reply.status == 200
        ids.append(reply.headers["x-prediction-id"])
    given = server.ask("POST", f"/v1/predictions/{ids[0]}/outcome", {"value": 1})
    assert given.status in (201, 202), given.body
    return key, ids, answers(server, key)


def padded(strength: float) -> bytes:
    """A model of some size: a description that nobody reads."""
    import onnx

    model = onnx.load_model_from_string(trained.cancer(strength).content)
    model.doc_string = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(250))
    return bytes(model.SerializeToString())


def answers(server: RunningServer, key: str) -> dict[str, object]:
    """What each version says to the same row."""
    row = trained.infer_body(X=trained.cancer().rows[:1])
    found = {}
    for model, version in MODELS:
        reply = server.ask("POST", f"/v2/models/{model}/versions/{version}/infer", row, key=key)
        assert reply.status == 200, reply.body
        found[f"{model}/{version}"] = reply.json["outputs"]
    return found


def stored(emulator: Emulator, bucket: str) -> dict[str, str]:
    """SHA-256 of each object, by its key behind the prefix."""
    return {
        key.removeprefix("models/"): hashlib.sha256(
            emulator.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        ).hexdigest()
        for key in emulator.keys(bucket)
    }


def on_disk(data: Path) -> dict[str, str]:
    """The same of a data folder's artifacts."""
    folders = [path.parent for path in (data / "artifacts").rglob("manifest.json")]
    return {
        f"{folder.name[:2]}/{folder.name}/{path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_laptop_becomes_postgresql_and_a_bucket(
    serve: Serve, postgres: Server, emulator: Emulator, tmp_path: Path
) -> None:
    """P1 P5: the first copy ends where the wire is cut, with a sentence; the second brings the rest. Every table has
    the rows of the source, compared by their hashes, every object of the bucket the bytes of its file, and nothing
    else is in it. A server with a new data folder answers from there, with the old key, as before, and knows the old
    predictions and the outcome."""
    server = serve()
    key, ids, before = filled(server)
    server.stop()
    bucket, url = emulator.bucket(), postgres.empty()
    settings = {
        "database.url": url, "artifacts.url": f"s3://{bucket}/models", "artifacts.endpoint_url": emulator.url,
        "artifacts.attempts": "1",
    }  # fmt: skip
    there = tmp_path / "there"

    def copied(endpoint: str) -> tuple[int, str]:
        (tmp_path / "there.toml").write_text(
            f'data = "{there}"\n[database]\nurl = "{url}"\n[artifacts]\nurl = "s3://{bucket}/models"\n'
            f'endpoint_url = "{endpoint}"\nattempts = 1\n'
        )
        ended = command("copy", "--from", server.data, "--to", tmp_path / "there.toml", "--json")
        return ended.returncode, ended.stdout + ended.stderr

    with wired(emulator.port) as wire:
        uploads = iter([None])

        def cut(request: bytes) -> Fault | None:
            is_model = request.startswith(b"PUT") and b"model.onnx" in request.partition(b"\r\n")[0]
            return next(uploads, Fault("reset", PASSES_BYTES, up=True)) if is_model else None

        wire.plan = cut
        code, said = copied(wire.url)
    assert code != 0, said
    assert url not in said
    assert "Traceback" not in said
    partly = stored(emulator, bucket)
    assert {key.rpartition("/")[2] for key in partly} == {"model.onnx", "manifest.json"}, "the first, and no other"
    assert partly.items() < on_disk(server.data).items()

    code, said = copied(emulator.url)
    assert code == 0, said
    found = json.loads(said)
    assert stored(emulator, bucket) == on_disk(server.data)
    assert 0 < found["versions"] < len(MODELS), "what was there already is not sent again"
    assert {name: found["tables"][name]["rows"] for name in ("versions", "predictions", "outcomes", "api_keys")} == {
        "versions": len(MODELS), "predictions": PREDICTIONS + len(MODELS), "outcomes": 1, "api_keys": 2,
    }  # fmt: skip
    assert found["waiting"] == 0

    home = RunningServer(there, settings={**settings, "auth.admin_key": server.key})
    try:
        home.start()
        assert answers(home, key) == before
        assert home.ask("GET", f"/v1/predictions/{ids[-1]}").status == 200
        assert home.ask("GET", f"/v1/predictions/{ids[0]}").json["outcomes"][0]["value"] == 1
        assert home.ask("GET", "/v1/audit/verify").json["sound"]
    finally:
        home.stop()
