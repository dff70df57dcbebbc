"""A start with a quick and a slow model: the quick one answers at once, and each step of each load can be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from server import RunningServer, command, until
from test_jailed_model import SETTINGS, _infer
from trained import infer_body, simple

from jailed import STATED, python_model
from modelyard.models.archive import pack_folder
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder

SLOW = """
import time

class Model:
    def load(self, folder):
        time.sleep(4)

    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


def _slow_archive(folder: Path) -> bytes:
    python_model(folder, SLOW)
    (folder / "modelyard.json").write_text(json.dumps(STATED))
    (folder / SIGNATURE_FILE).write_bytes(sign(hash_folder(folder, 10**6), keys.key_from_seed(bytes(32))))
    return b"".join(pack_folder(folder))


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
        until(lambda: _infer(server, 3).status == 200, what="the slow model")
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
        done = command("models", "timeline", "mine", "--data", server.data, "--json")
        (load,) = json.loads(done.stdout)["loads"]
        steps = {step["name"]: step for step in load["steps"]}
        assert list(steps) == ["wait", "resolve", "verify", "parse", "warm_up", "first_answer"]
        assert (load["state"], load["worker"]) == ("loaded", 0)
        assert 4 < steps["parse"]["duration_s"] < load["total_s"]
        assert steps["verify"]["size_bytes"] == made.json["size_bytes"]
        shown = command("models", "timeline", "simple", "--data", server.data).stdout
        assert "worker 0: loaded after" in shown
        assert "█" in shown
    except BaseException:
        server.end()
        raise
    server.stop()
