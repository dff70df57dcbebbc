"""One model asked in every form that other servers made common: the same numbers, the same records."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import trained
from server import RunningServer, until

ROWS = trained.cancer().rows[:5]
NAMES = [f"f{number}" for number in range(30)]
TF = "/v1/models/cancer:predict"


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def frame(rows: Any = ROWS) -> dict[str, Any]:
    return {"dataframe_split": {"columns": NAMES, "index": list(range(len(rows))), "data": rows.tolist()}}


CSV = "\n".join([",".join(NAMES), *(",".join(map(repr, row)) for row in ROWS.tolist())])
HERE = {"x-modelyard-model": "cancer"}
FORMS: dict[str, tuple[str, Any, dict[str, str]]] = {
    "open inference": ("/v2/models/cancer/versions/1/infer", trained.infer_body(X=ROWS), {}),
    "named rows": ("/v1/models/cancer/versions/1/predictions", {"items": [{"X": row} for row in ROWS.tolist()]}, {}),
    "tf rows": (TF, {"instances": ROWS.tolist()}, {}),
    "tf rows by name": (TF, {"signature_name": "serving_default", "instances": [{"X": r} for r in ROWS.tolist()]}, {}),
    "tf columns": ("/v1/models/cancer/versions/1:predict", {"inputs": ROWS.tolist()}, {}),
    "tf columns by name": (TF, {"inputs": {"X": ROWS.tolist()}}, {}),
    "mlflow split": ("/invocations", frame(), HERE),
    "mlflow records": (
        "/invocations?model=cancer",
        {"dataframe_records": [dict(zip(NAMES, row, strict=True)) for row in ROWS.tolist()]},
        {},
    ),
    "mlflow instances": ("/invocations", {"instances": ROWS.tolist()}, HERE),
    "mlflow inputs": ("/invocations", {"inputs": ROWS.tolist(), "params": {}}, HERE),
    "mlflow csv": ("/invocations", CSV.encode(), {**HERE, "content-type": "text/csv; charset=utf-8"}),
    "sagemaker csv": (
        "/invocations",
        CSV.partition("\n")[2].encode(),
        {"content-type": "text/csv", "x-amzn-sagemaker-target-model": "cancer.tar.gz", "accept": "application/json"},
    ),
    "sagemaker npy": ("/invocations", npy(ROWS), {**HERE, "content-type": "application/x-npy"}),
}


def probabilities(body: Any) -> list[list[float]]:
    """What an answer says, whatever its form."""
    if "results" in body:
        return [result["output"]["probabilities"] for result in body["results"]]
    if "predictions" in body:
        return [row["probabilities"] for row in body["predictions"]]
    if isinstance(body["outputs"], dict):
        found: list[list[float]] = body["outputs"]["probabilities"]
        return found
    (data,) = [output["data"] for output in body["outputs"] if output["name"] == "probabilities"]
    return [data[place : place + 2] for place in range(0, len(data), 2)]


@pytest.fixture(scope="module")
def traffic(server: RunningServer) -> None:
    """Version 1 gets all of it."""
    assert server.ask("PUT", "/v1/endpoints/cancer/traffic", {"weights": {"1": 100}}).status == 200


@pytest.mark.usefixtures("traffic")
def test_every_form_gives_the_model_s_own_numbers_and_one_record(server: RunningServer) -> None:
    """The numbers are those that the model gives offline; the log has the same inputs and outputs for each form."""
    expected = trained.cancer(1.0).probabilities[:5]
    key = server.create_key("surfaces", rate="1000000/s")["key"]
    ids: dict[str, str] = {}
    for form, (path, body, headers) in FORMS.items():
        reply = server.ask("POST", path, body, key=key, headers=headers)
        assert reply.status == 200, (form, reply.body)
        assert np.allclose(probabilities(reply.json), expected, atol=1e-6), form
        assert reply.headers["x-model-version"] == "1"
        ids[form] = reply.headers["x-prediction-id"]
    until(lambda: server.count(client="surfaces") == len(FORMS), what="the drain")
    records = {form: server.ask("GET", f"/v1/predictions/{name}").json for form, name in ids.items()}
    for form, record in records.items():
        if form == "named rows":
            continue
        assert np.allclose(record["inputs"]["X"], ROWS, rtol=1e-7), form
        assert np.allclose(record["outputs"]["probabilities"], expected, atol=1e-6), form


@pytest.mark.usefixtures("traffic")
def test_refusals_are_errors_that_every_client_can_read(server: RunningServer, client_key: str) -> None:
    """A sentence under `error`, as TensorFlow Serving writes it, and the place; a good request after it is answered."""
    for path, body, headers, status, field in (
        (TF, {"instances": [[1, 2]]}, {}, 400, "instances"),
        (TF, {"signature_name": "other", "instances": ROWS.tolist()}, {}, 400, "signature_name"),
        ("/v1/models/none:predict", {"instances": [[1]]}, {}, 404, "model"),
        ("/v1/models/cancer/versions/77:predict", {"instances": [[1]]}, {}, 404, "version"),
        ("/invocations", frame(), {}, 400, "x-modelyard-model"),
        ("/invocations", frame(), {"x-modelyard-model": "a..b"}, 400, "model"),
        ("/invocations", {**frame(), "params": {"k": 1}}, HERE, 400, "params"),
        ("/invocations", b"<x/>", {**HERE, "content-type": "application/xml"}, 415, "content-type"),
    ):
        reply = server.ask("POST", path, body, key=client_key, headers=headers)
        assert reply.status == status, reply.body
        assert reply.json["detail"]["field"] == field
        assert isinstance(reply.json["error"], str)
        good = server.ask("POST", TF, {"instances": ROWS.tolist()}, key=client_key)
        assert good.status == 200
    assert server.ask("POST", "/invocations", frame(), key=None).status == 401


def test_the_default_endpoint(serve: Any) -> None:
    """With one model `/invocations` needs no name; with two the setting decides, and without it the caller must."""
    server: RunningServer = serve(settings={"http.default_endpoint": "second"})
    content = trained.divide()
    body = {"inputs": {"a": [6], "b": [2]}}
    assert server.publish("first", content, "1").status == 201
    key = server.create_key("caller", rate="1000000/s")["key"]
    assert server.ask("POST", "/invocations", body, key=key).status == 404
    assert server.publish("second", content, "1").status == 201
    reply = server.ask("POST", "/invocations", body, key=key)
    assert (reply.status, reply.json) == (200, {"predictions": [[3.0]]})
    assert server.ask("GET", "/ping", key=None).status == 200
    server.stop()


def test_statistics_count_every_worker(server: RunningServer) -> None:
    """What two workers answered and refused is in the statistics as soon as it is answered, whoever is asked."""
    key = server.create_key("counted", rate="1000000/s")["key"]
    path = "/v2/models/simple/versions/1/stats"

    def counts() -> tuple[int, int, int]:
        (stats,) = server.ask("GET", path, key=key, fresh=True).json["model_stats"]
        said = stats["inference_stats"]
        batches = sum(batch["compute_infer"]["count"] for batch in stats["batch_stats"])
        assert batches == stats["execution_count"]
        assert said["success"]["ns"] >= said["queue"]["ns"] + said["compute_infer"]["ns"]
        return said["success"]["count"], said["fail"]["count"], stats["inference_count"]

    before = counts()
    body = trained.infer_body(**{name: np.ones((2, 16), np.int64) for name in ("INPUT0", "INPUT1")})
    for _ in range(20):
        assert server.ask("POST", "/v2/models/simple/infer", body, key=key, fresh=True).status == 200
    for _ in range(5):
        assert server.ask("POST", "/v2/models/simple/infer", {"inputs": []}, key=key, fresh=True).status == 400
    until(lambda: counts() == (before[0] + 20, before[1] + 5, before[2] + 40), what="the counts")


def test_logs_hold_no_number_that_was_not_sent(server: RunningServer) -> None:
    """A tenth stays a tenth in the log, though the model computes with less of it."""
    key = server.create_key("tenth", rate="1000000/s")["key"]
    reply = server.ask("POST", "/v1/models/divide:predict", {"instances": [{"a": 0.1, "b": 0.2}]}, key=key)
    assert reply.json == {"predictions": [[0.5]]}
    until(lambda: server.count(client="tenth") == 1, what="the drain")
    record = server.ask("GET", f"/v1/predictions/{reply.headers['x-prediction-id']}").json
    assert json.loads(json.dumps(record["inputs"])) == {"a": [[0.1]], "b": [[0.2]]}
