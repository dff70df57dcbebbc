"""A start with a quick and a slow model: the quick one answers at once, and each step of each load can be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from server import RunningServer, command, until
from test_jailed_model import SETTINGS, _infer
from trained import IR_VERSION, OPSET, infer_body, simple

from jailed import STATED, python_model
from modelyard.models.archive import pack_folder
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder

SLOW = """
import time

class Model:
    def load(self, folder):
        time.sleep(3)

    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


def _slow_archive(folder: Path) -> bytes:
    python_model(folder, SLOW)
    (folder / "modelyard.json").write_text(json.dumps(STATED))
    (folder / SIGNATURE_FILE).write_bytes(sign(hash_folder(folder, 10**6), keys.key_from_seed(bytes(32))))
    return b"".join(pack_folder(folder))


def _large() -> bytes:
    """Four megabytes of weights."""
    weights = helper.make_tensor(
        "w", TensorProto.FLOAT, (1024, 1024), np.ones(1024 * 1024, np.float32).tobytes(), raw=True
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (None, 1024))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (None, 1024))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "large", [x], [y], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


def test_the_quick_model_answers_while_the_slow_one_loads(tmp_path: Path) -> None:
    """P9: after a start the quick model answers while the slow one says 503 `model_not_ready` with Retry-After; each
    one's readiness is its own, the server's is of both. The timeline has every step of each, with the first answer."""
    row = np.ones((1, 16), np.int64)
    server = RunningServer(tmp_path / "data", settings={**SETTINGS, "auth.admin_key": "k" * 40}).start()
    try:
        assert server.publish("simple", simple(), "1").status == 201
        headers = {"content-type": "application/x-tar"}
        made = server.ask("PUT", "/v1/models/mine/versions/1", _slow_archive(tmp_path / "m"), headers=headers)
        assert made.status == 201, made.body
        server.stop()
        server.start()
        assert server.ask("POST", "/v2/models/simple/infer", infer_body(INPUT0=row, INPUT1=row)).status == 200
        waiting = _infer(server, 3)
        assert (waiting.status, waiting.json["code"]) == (503, "model_not_ready")
        assert waiting.headers["retry-after"] == "1"
        assert server.ask("GET", "/v2/models/simple/ready").status == 200
        assert server.ask("GET", "/v2/models/mine/ready").status == 503
        assert "model `mine`" in server.ask("GET", "/v2/health/ready", key=None).json["reason"]
        (load,) = server.ask("GET", "/v1/models/mine/versions/1").json["loads"]
        assert (load["state"], load["total_s"]) == ("loading", None)
        until(lambda: server.ask("GET", "/v2/health/ready", key=None).status == 200, what="ready")
        assert _infer(server, 3).json["outputs"][0]["data"] == [6.0, 6.0]
        until(lambda: "first_answer" in str(server.ask("GET", "/v1/models/mine/versions/1").json["loads"]))
        (load,) = server.ask("GET", "/v1/models/mine/versions/1").json["loads"]
        steps = {step["name"]: step for step in load["steps"]}
        assert list(steps) == ["wait", "resolve", "verify", "parse", "warm_up", "first_answer"]
        assert (load["state"], load["worker"]) == ("loaded", 0)
        assert 3 < steps["parse"]["duration_s"] < load["total_s"]
        assert steps["verify"]["size_bytes"] == made.json["size_bytes"]
        shown = command("models", "timeline", "mine", "--data", server.data).stdout
        assert "worker 0: loaded after" in shown
        assert "█" in shown
    except BaseException:
        server.end()
        raise
    server.stop()


def test_memory_is_bounded_and_refusals_have_numbers(tmp_path: Path) -> None:
    """With room for one version without traffic, one that a prediction names comes in and the other leaves, while the
    one with traffic answers all along. A publish that would not fit is 409 with its numbers and leaves nothing."""
    bounds = {"models.max_idle_versions": "1", "models.memory_bytes": str(7 * 1024**2), "auth.admin_key": "k" * 40}
    server = RunningServer(tmp_path / "data", settings=bounds).start()
    row = np.ones((1, 16), np.int64)

    def status(version: str) -> int:
        path = f"/v2/models/simple/versions/{version}/infer"
        return server.ask("POST", path, infer_body(INPUT0=row, INPUT1=row)).status

    try:
        for version in ("1", "2", "3"):
            assert server.publish("simple", simple(), version).status == 201
            until(lambda version=version: status(version) == 200, what="the newest version")  # type: ignore[misc]
        assert server.ask("GET", "/v2/models/simple/versions/2/ready").status == 503
        assert status("2") == 503
        until(lambda: status("2") == 200, what="the version that was named")
        assert status("1") == 200
        until(lambda: server.events("model.unloaded"), what="the one that left")
        assert {event["version"] for event in server.events("model.unloaded")} == {"2", "3"}
        refused = server.publish("large", _large(), "1")
        assert (refused.status, refused.json["code"]) == (409, "memory_insufficient")
        told = refused.json["detail"]
        assert told["needs_bytes"] > told["has_bytes"] - told["held_bytes"]
        assert set(told["held_by"]) == {"simple/1"}
        assert server.ask("GET", "/v1/models/large").status == 404
    except BaseException:
        server.end()
        raise
    server.stop()
