"""The codec against the bytes that an untouched tritonclient writes and reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from modelyard.codec import CODECS
from modelyard.core.types import AnswerContext, CodecBounds, RawRequest, Signature, Surface, TensorSpec

OIP = CODECS[Surface.OIP]
SIGNATURE = Signature(
    (TensorSpec("X", "FP32", (-1, 3)), TensorSpec("T", "BYTES", (-1, 1)), TensorSpec("B", "BOOL", (-1,))),
    (TensorSpec("Y", "INT64", (-1,)), TensorSpec("S", "BYTES", (-1, 1)), TensorSpec("P", "FP32", (-1, 2))),
)
INPUTS = {
    "X": np.arange(6, dtype=np.float32).reshape(2, 3),
    "T": np.array([["né"], ["b"]], dtype=object),
    "B": np.array([True, False]),
}
OUTPUTS = {
    "Y": np.array([2**53 + 1, -1]),
    "S": np.array([[b"a"], ["é".encode()]], dtype=object),
    "P": np.array([[0.1, 0.9], [0.5, 0.5]], np.float32),
}


def exchange(binary_in: bool, outputs: list[Any] | None, **more: Any) -> Any:
    """Body by the client, through the codec and back, answer read by the client."""
    inputs = []
    for spec in SIGNATURE.inputs:
        item = triton.InferInput(spec.name, list(INPUTS[spec.name].shape), spec.datatype)
        item.set_data_from_numpy(INPUTS[spec.name], binary_data=binary_in)
        inputs.append(item)
    body, json_size = triton.InferenceServerClient.generate_request_body(inputs, outputs=outputs, **more)
    header = None if json_size is None else str(json_size).encode()
    request = OIP.decode(RawRequest(bytes(body), None, header), SIGNATURE, CodecBounds())
    np.testing.assert_array_equal(request.inputs["X"], INPUTS["X"])
    np.testing.assert_array_equal(request.inputs["B"], INPUTS["B"])
    assert request.inputs["T"].tolist() == [["né".encode()], [b"b"]]
    answer = OIP.encode(request, OUTPUTS, AnswerContext("m", "1", "id", SIGNATURE))
    return triton.InferenceServerClient.parse_response_body(answer.body, header_length=answer.header_length)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("asked", ["nothing", "binary", "json"])
def test_an_untouched_client_reads_what_it_should(binary_in: bool, asked: str) -> None:
    """Its default binary mode and its JSON mode, with and without requested outputs."""
    wanted = None
    if asked != "nothing":
        wanted = [triton.InferRequestedOutput(name, binary_data=asked == "binary") for name in ("P", "Y", "S")]
    result = exchange(binary_in, wanted, request_id="mine")
    assert result.get_response()["id"] == "mine"
    np.testing.assert_array_equal(result.as_numpy("Y"), OUTPUTS["Y"])
    np.testing.assert_array_equal(result.as_numpy("P"), OUTPUTS["P"])
    texts = [value if isinstance(value, str) else value.decode() for value in result.as_numpy("S").ravel().tolist()]
    assert texts == ["a", "é"]
