"""`tritonclient[http]`, untouched, sync and aio, in its default binary mode: the Open Inference Protocol's traps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import trained
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from server import RunningServer, until
from tritonclient.utils import InferenceServerException

# The aio client does not release every connection it opened before it is collected; that is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TRITON_TYPES = {"f": "FP32", "i": "INT64", "O": "BYTES"}


class Client:
    """One client library behind one face; every call carries the key."""

    def __init__(self, server: RunningServer, key: str, aio: bool) -> None:
        self._headers = {"x-api-key": key}
        self._address = server.url.removeprefix("http://")
        self._aio = aio
        self.module: Any = triton_aio if aio else triton
        self._sync: Any = None if aio else triton.InferenceServerClient(self._address, network_timeout=30)

    def call(self, method: str, *arguments: Any, key: bool = True, **options: Any) -> Any:
        """Calls a method of the client."""
        # A new one each time: the client writes its own fields into the caller's dictionary.
        headers = dict(self._headers) if key else {}
        if not self._aio:
            return getattr(self._sync, method)(*arguments, headers=headers, **options)

        async def run() -> Any:
            async with triton_aio.InferenceServerClient(self._address) as client:
                return await getattr(client, method)(*arguments, headers=headers, **options)

        return asyncio.run(run())

    def infer(self, model: str, tensors: Mapping[str, Any], binary: bool = True, **options: Any) -> Any:
        """Infers with these arrays."""
        return self.call("infer", model, [wanted(name, array, binary) for name, array in tensors.items()], **options)

    def close(self) -> None:
        if self._sync is not None:
            self._sync.close()


def wanted(name: str, array: Any, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(array.shape), TRITON_TYPES[array.dtype.kind])
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.fixture(params=[False, True], ids=["sync", "aio"])
def client(request: pytest.FixtureRequest, server: RunningServer, client_key: str) -> Iterator[Client]:
    opened = Client(server, client_key, request.param)
    yield opened
    opened.close()


ROWS = trained.cancer().rows[:7]
WHOLE = np.arange(32, dtype=np.int64).reshape(2, 16) + 2**53


def right(result: Any, rows: int = 7) -> bool:
    expected = trained.cancer(1.0).probabilities[:rows]
    return bool(np.allclose(result.as_numpy("probabilities"), expected, atol=1e-6)) and bool(
        (result.as_numpy("label") == expected.argmax(1)).all()
    )


def test_health_and_metadata(client: Client) -> None:
    """Live, ready, model ready; metadata of server and model, versioned and not. Health needs no key."""
    assert client.call("is_server_live", key=False) is True
    assert client.call("is_server_ready", key=False) is True
    assert client.call("is_model_ready", "cancer") is True
    assert client.call("is_model_ready", "cancer", "2") is True
    assert client.call("is_model_ready", "no-such-model") is False
    about = client.call("get_server_metadata", key=False)
    assert about["name"] == "modelyard"
    assert "binary_tensor_data" in about["extensions"]
    for version in ("", "1"):
        model = client.call("get_model_metadata", "cancer", version)
        assert (model["name"], model["platform"]) == ("cancer", "onnx_onnxv1")
        assert {"1", "2"} <= set(model["versions"])
        (tensor,) = model["inputs"]
        assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("X", "FP32", [-1, 30])
        assert [output["name"] for output in model["outputs"]] == ["label", "probabilities"]


def test_default_is_binary_both_ways(client: Client) -> None:
    """Traps 1 and 2: no content type, binary inputs, no outputs named, so binary outputs; 200 and the right numbers."""
    result = client.infer("cancer", {"X": ROWS})
    assert right(result)
    said = result.get_response()
    assert said["model_name"] == "cancer"
    assert all("binary_data_size" in output["parameters"] and "data" not in output for output in said["outputs"])


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_every_mix_of_json_and_binary(client: Client, binary_in: bool, binary_out: bool) -> None:
    """JSON or binary inputs, JSON or binary outputs; only what was asked for comes back."""
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    result = client.infer("cancer", {"X": ROWS}, binary_in, outputs=outputs)
    assert np.allclose(result.as_numpy("probabilities"), trained.cancer(1.0).probabilities[:7], atol=1e-6)
    assert result.as_numpy("label") is None
    assert ("data" in result.get_output("probabilities")) is not binary_out


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted_back", [None, "gzip", "deflate"])
def test_compression(client: Client, sent: str | None, wanted_back: str | None) -> None:
    """gzip and deflate, both ways and mixed."""
    options = {"request_compression_algorithm": sent, "response_compression_algorithm": wanted_back}
    assert right(client.infer("cancer", {"X": ROWS}, **options))


def test_versions_and_ids(client: Client) -> None:
    """Each version by name; the id of the request comes back."""
    for version, strength in (("1", 1.0), ("2", 0.01)):
        result = client.infer("cancer", {"X": ROWS}, model_version=version, request_id=f"id-{version}")
        assert np.allclose(result.as_numpy("probabilities"), trained.cancer(strength).probabilities[:7], atol=1e-6)
        said = result.get_response()
        assert (said["id"], said["model_version"]) == (f"id-{version}", version)


@pytest.mark.parametrize("binary", [True, False])
def test_integers_stay_exact(client: Client, binary: bool) -> None:
    """Trap 10: whole numbers beyond 2^53 never pass through a float, in binary and in JSON."""
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")]
    odd = np.full((2, 16), 2**53 + 1, np.int64)
    result = client.infer("simple", {"INPUT0": WHOLE, "INPUT1": odd}, binary, outputs=outputs)
    assert (result.as_numpy("OUTPUT0") == WHOLE + odd).all()
    assert (result.as_numpy("OUTPUT1") == WHOLE - odd).all()


def test_infinities_in_binary(client: Client) -> None:
    """Trap 9: binary carries NaN and the infinities exactly."""
    a, b = np.array([[0], [1], [-1]], np.float32), np.zeros((3, 1), np.float32)
    quotient = client.infer("divide", {"a": a, "b": b}).as_numpy("quotient").ravel()
    assert np.isnan(quotient[0])
    assert quotient[1:].tolist() == [np.inf, -np.inf]


def test_infinities_in_json(server: RunningServer, client_key: str) -> None:
    """Trap 9: JSON has no NaN; the answer stays valid JSON, with null in its place."""
    body = trained.infer_body(a=np.array([[0], [1], [8]], np.float32), b=np.array([[0], [0], [2]], np.float32))
    reply = server.ask("POST", "/v2/models/divide/infer", body, key=client_key)

    def never(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    said = json.loads(reply.body, parse_constant=never)
    assert said["outputs"][0]["data"] == [None, None, 4.0]


def test_text(client: Client) -> None:
    """Trap 7: text in binary comes back as bytes, in JSON as text; the same characters."""
    text = np.array([["day", "größe"], ["日本", ""]], dtype=np.object_)
    raw = np.array([[word.encode() for word in row] for row in text], dtype=np.object_)
    assert (client.infer("words", {"words": raw}).as_numpy("same") == raw).all()
    outputs = [triton.InferRequestedOutput("same", binary_data=False)]
    assert (client.infer("words", {"words": text}, False, outputs=outputs).as_numpy("same") == text).all()


def test_errors_reach_the_caller(client: Client) -> None:
    """Traps 3 and 8: what is wrong comes as the client's own exception, with our sentence and the status."""
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        ("cancer", {"wrong": ROWS}, "400", "input"),
        ("cancer", {"X": ROWS[:, :5]}, "400", "inputs[0].shape"),
        ("cancer", {"X": WHOLE}, "400", "inputs[0].datatype"),
        ("no-such-model", {"X": ROWS}, "404", "no-such-model"),
    ]
    for model, tensors, status, word in cases:
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, tensors)
        assert status in str(refused.value.status()), refused.value
        assert word in refused.value.message(), refused.value.message()
    with pytest.raises(InferenceServerException) as unknown:
        client.infer("cancer", {"X": ROWS}, model_version="77")
    assert "404" in str(unknown.value.status())
    with pytest.raises(InferenceServerException) as keyless:
        client.call("infer", "cancer", [wanted("X", ROWS)], key=False)
    assert "401" in str(keyless.value.status())
    assert right(client.infer("cancer", {"X": ROWS}))


def test_error_form_for_other_clients(server: RunningServer, client_key: str) -> None:
    """Trap 4: errors are exactly `application/json` with a text `error` on top; ready says both words."""
    reply = server.ask("POST", "/v2/models/cancer/infer", {"inputs": [{"name": "X"}]}, key=client_key)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert isinstance(reply.json["error"], str)
    ready = server.ask("GET", "/v2/health/ready", key=None)
    assert (ready.headers["content-type"], ready.json) == ("application/json", {"ready": True, "live": True})


def test_fields_of_other_clients(server: RunningServer, client_key: str) -> None:
    """Trap 5: `model_name`, `id` and unknown parameters in the body are accepted; the answer has what a strict
    reader needs."""
    body = trained.infer_body(X=ROWS) | {"model_name": "cancer", "id": "a-b", "parameters": {"sequence": 3}}
    said = server.ask("POST", "/v2/models/cancer/infer", body, key=client_key).json
    assert (said["model_name"], said["id"]) == ("cancer", "a-b")
    assert all({"name", "shape", "datatype", "data"} <= set(output) for output in said["outputs"])


def test_binary_predictions_are_logged(server: RunningServer) -> None:
    """What came and left in binary is readable in the log: numbers, not bytes."""
    key = server.create_key("binary", rate="1000000/s")["key"]
    client = Client(server, key, aio=False)
    try:
        client.infer("simple", {"INPUT0": WHOLE[:1], "INPUT1": WHOLE[:1] * 0 + 7}, request_compression_algorithm="gzip")
    finally:
        client.close()
    until(lambda: server.count(client="binary") == 1, what="the drain")
    listed = server.ask("GET", "/v1/predictions?client=binary").json["predictions"]
    record = server.ask("GET", f"/v1/predictions/{listed[0]['id']}").body.decode()
    assert str(2**53 + 5 + 7) in record


def test_parallel_requests(server: RunningServer, client_key: str) -> None:
    """Twenty requests at once over one aio client: each gets the answer to its own rows."""
    rows, said = trained.cancer().rows, trained.cancer(1.0).probabilities

    async def run() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            headers = {"x-api-key": client_key}
            asked = [client.infer("cancer", [wanted("X", rows[i : i + 1 + i % 3])], headers=headers) for i in range(20)]
            return list(await asyncio.gather(*asked))

    for number, result in enumerate(asyncio.run(run())):
        expected = said[number : number + 1 + number % 3]
        assert np.allclose(result.as_numpy("probabilities"), expected, atol=1e-6)


def test_repository_index(client: Client) -> None:
    """Trap 6: the index is asked for with an empty body and no content type."""
    listed = client.call("get_model_repository_index")
    states = {(entry["name"], entry["version"]): entry["state"] for entry in listed}
    assert states["cancer", "1"] == states["cancer", "2"] == states["simple", "1"] == "READY"


def test_statistics(client: Client) -> None:
    """What was just answered is counted, for one version, one model and all."""

    def count(*arguments: str) -> int:
        stats = client.call("get_inference_statistics", *arguments)["model_stats"]
        counts: list[int] = [
            one["inference_count"] for one in stats if (one["name"], one["version"]) == ("cancer", "2")
        ]
        assert len(counts) == 1
        return counts[0]

    before = count("cancer", "2")
    assert client.infer("cancer", {"X": ROWS}, model_version="2").as_numpy("label").shape == (7,)
    for arguments in (("cancer", "2"), ("cancer",), ()):
        until(lambda arguments=arguments: count(*arguments) == before + 7, what="the count")  # type: ignore[misc]


def test_classification(client: Client) -> None:
    """The highest classes come back as text, value and index."""
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    said = client.infer("cancer", {"X": ROWS}, model_version="1", outputs=outputs).as_numpy("probabilities")
    expected = trained.cancer(1.0).probabilities[:7]
    assert said.shape == (7, 1)
    for text, row in zip(said.ravel(), expected, strict=True):
        value, index = text.decode().split(":")[:2]
        assert int(index) == row.argmax()
        assert abs(float(value) - row.max()) < 1e-5


def test_load_and_unload(server: RunningServer) -> None:
    """An administrator's load is 200 where all traffic is answered; an unload of what has traffic says why not."""
    key = server.create_key("repository", scopes=["admin", "predict"], rate="1000000/s")["key"]
    client = Client(server, key, aio=False)
    try:
        client.call("load_model", "cancer")
        with pytest.raises(InferenceServerException, match="stays loaded"):
            client.call("unload_model", "cancer")
        with pytest.raises(InferenceServerException, match="no model"):
            client.call("load_model", "no-such-model")
    finally:
        client.close()
