"""A class in its jail behind a real server: answers, deaths, the neighbour, the way out and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from server import Reply, RunningServer, until
from trained import infer_body, simple

from jailed import STATED, python_model
from modelyard.models.archive import pack_folder
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder

KEY = keys.key_from_seed(bytes(32))
SETTINGS = {
    "models.unsafe_formats": '["python"]',
    "models.trusted_signers": json.dumps([keys.public_line(keys.public_bytes(KEY))]),
    "models.unhealthy_deaths": "3",
    "models.jail_tensor_bytes": str(4 * 1024**2),
}
SOURCE = """
import os

class Model:
    def load(self, folder):
        pass

    def predict(self, inputs):
        if inputs["x"][0, 0] == 1:
            os._exit(1)
        return {"y": inputs["x"] * 2}
"""


def _signed(folder: Path) -> bytes:
    """The model's folder, signed, as a tar archive."""
    python_model(folder, SOURCE)
    (folder / "modelyard.json").write_text(json.dumps(STATED))
    (folder / SIGNATURE_FILE).write_bytes(sign(hash_folder(folder, 10**6), KEY))
    return b"".join(pack_folder(folder))


def _infer(server: RunningServer, value: float) -> Reply:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [value, value]}
    return server.ask("POST", "/v2/models/mine/infer", {"inputs": [tensor]})


def test_a_jailed_model_from_its_publish_to_its_revival(tmp_path: Path) -> None:
    """K2, K6, P11: signed and published over HTTP it answers from its jail. A run that ends the process is 500 with its
    code, the next ones wait for nothing; the worker and its other model serve on. After three deaths the version is
    taken out, with its events; revived, it answers again."""
    server = RunningServer(tmp_path / "data", settings=SETTINGS).start()
    try:
        assert server.publish("simple", simple(), "1").status == 201
        archive = _signed(tmp_path / "m")
        headers = {"content-type": "application/x-tar"}
        made = server.ask("PUT", "/v1/models/mine/versions/1", archive, headers=headers)
        assert made.status == 201, made.body
        assert made.json["signing"]["trusted"] is True
        (worker,) = server.worker_pids()
        row = np.ones((1, 16), np.int64)
        for death in range(3):
            until(lambda: _infer(server, 3).status == 200, what="its process")
            assert _infer(server, 3).json["outputs"][0]["data"] == [6.0, 6.0]
            died = _infer(server, 1)
            assert (died.status, died.json["code"]) == (500, "model_exited")
            soon = _infer(server, 3)
            assert soon.status == 503, death
            assert int(soon.headers["retry-after"]) >= 1
            neighbour = server.ask("POST", "/v2/models/simple/infer", infer_body(INPUT0=row, INPUT1=row))
            assert neighbour.status == 200
        until(lambda: _infer(server, 3).json.get("code") == "model_unhealthy", what="the version to be taken out")
        assert [event["code"] for event in server.events("model.process_lost")] == ["model_exited"] * 3
        assert len(server.events("model.unhealthy")) == 1
        actions = [event["action"] for event in server.ask("GET", "/v1/audit").json["events"]]
        assert actions.count("version:unhealthy") == 1
        assert server.ask("POST", "/v1/models/mine/versions/1/revive").json["revived"] is True
        until(lambda: _infer(server, 3).status == 200, what="the revived version")
        assert server.worker_pids() == [worker]
    except BaseException:
        server.end()
        raise
    server.stop()
