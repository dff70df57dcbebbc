"""What the Open Inference Protocol's codec accepts, and how it answers."""

from __future__ import annotations

import gc
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.codec import CODECS
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    OutputRequest,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

OIP = CODECS[Surface.OIP]
X = {"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, 3]}
OUTPUTS = {"label": np.array([1]), "scores": np.array([[0.25, 0.75]], np.float32)}


def answer(request: DecodedRequest, outputs: Any, signature: Signature) -> EncodedAnswer:
    return OIP.encode(request, outputs, AnswerContext("m", "1.0", "0198-id", signature))


def test_extra_fields_and_parameters_are_accepted(decode: Any, tree: Signature) -> None:
    """Clients send model_name, content types and fields of their own; none of them hurts."""
    body = {
        "model_name": "tree",
        "id": "mine",
        "parameters": {"content_type": "np", "priority": 1, "nested": [1, {"a": 2}]},
        "inputs": [{**X, "parameters": {"content_type": "np"}, "other": None}],
        "more": {"a": [1]},
    }
    decoded = decode(body, tree)
    assert decoded.client_id == "mine"
    assert decoded.rows == 1
    np.testing.assert_array_equal(decoded.inputs["X"], np.array([[1, 2.5, 3]], np.float32))


def test_tensors_are_writable_and_of_the_signatures_type(decode: Any, tree: Signature) -> None:
    """Runtimes may need writable, aligned memory whichever way a tensor came."""
    blob = np.arange(3, dtype="<f4").tobytes()
    item = {"name": "X", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    for pad in range(4):
        head = orjson.dumps({"inputs": [item]}) + b" " * pad
        for decoded in (decode({"inputs": [X]}, tree), decode(head + blob, tree, header=b"%d" % len(head))):
            array = decoded.inputs["X"]
            assert array.flags.writeable
            assert array.flags.aligned
            assert array.flags.c_contiguous
            assert array.dtype == np.float32


def test_subject_and_binary_default_are_read(decode: Any, tree: Signature) -> None:
    """parameters.subject and parameters.binary_data_output reach the decoded request."""
    decoded = decode({"inputs": [X], "parameters": {"subject": "p-1", "binary_data_output": True}}, tree)
    assert (decoded.subject, decoded.binary) == ("p-1", True)


def test_inputs_of_different_length_share_no_rows(decode: Any, two: Signature) -> None:
    """Where first dimensions differ, `rows` is 0 and the request is never batched."""
    text = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}
    n = {"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    assert decode({"inputs": [text, n]}, two).rows == 2
    assert decode({"inputs": [text, {**n, "shape": [1], "data": [1]}]}, two).rows == 0


def test_a_fixed_first_dimension_is_no_batch(decode: Any) -> None:
    """A model without a free first dimension is never batched."""
    signature = Signature((TensorSpec("X", "FP32", (1, 3)),), ())
    assert decode({"inputs": [X]}, signature).rows == 0


def test_integers_beyond_2_53_stay_exact(decode: Any) -> None:
    """64-bit integers pass through JSON both ways without a float in between."""
    for datatype, value in (("INT64", -(2**63)), ("INT64", 2**53 + 1), ("UINT64", 2**64 - 1)):
        spec = TensorSpec("X", datatype, (-1,))
        signature = Signature((spec,), (spec,))
        decoded = decode({"inputs": [{"name": "X", "shape": [1], "datatype": datatype, "data": [value]}]}, signature)
        assert decoded.inputs["X"].tolist() == [value]
        assert orjson.loads(answer(decoded, decoded.inputs, signature).body)["outputs"][0]["data"] == [value]


def test_mixed_json_and_binary_inputs(decode: Any, two: Signature) -> None:
    """One input as JSON and one as a blob in the same message."""
    blob = struct.pack("<I", 2) + b"\xff\x00"
    text = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    n = {"name": "n", "shape": [1], "datatype": "INT64", "data": [9]}
    for inputs in ([text, n], [n, text]):
        head = orjson.dumps({"inputs": inputs})
        decoded = decode(head + blob, two, header=b"%d" % len(head))
        assert decoded.inputs["text"].tolist() == [[b"\xff\x00"]]
        assert decoded.inputs["n"].tolist() == [9]


def test_blobs_follow_the_order_of_the_inputs(decode: Any) -> None:
    """Two blobs are told apart by the order in the JSON part, not by the signature's."""
    signature = Signature((TensorSpec("a", "INT8", (-1,)), TensorSpec("b", "INT8", (-1,))), ())
    part = [
        {"name": n, "shape": [s], "datatype": "INT8", "parameters": {"binary_data_size": s}}
        for n, s in (("b", 2), ("a", 1))
    ]
    head = orjson.dumps({"inputs": part})
    decoded = decode(head + b"\x01\x02\x03", signature, header=b"%d" % len(head))
    assert decoded.inputs["b"].tolist() == [1, 2]
    assert decoded.inputs["a"].tolist() == [3]


def test_an_empty_tensor_is_legal(decode: Any, tree: Signature) -> None:
    """binary_data_size 0 and an empty list are both an empty tensor."""
    item = {"name": "X", "shape": [0, 3], "datatype": "FP32"}
    head = orjson.dumps({"inputs": [{**item, "parameters": {"binary_data_size": 0}}]})
    assert decode(head, tree, header=b"%d" % len(head)).inputs["X"].shape == (0, 3)
    assert decode({"inputs": [{**item, "data": []}]}, tree).inputs["X"].shape == (0, 3)


def test_a_repeated_header_reads_its_own_blob(decode: Any, tree: Signature) -> None:
    """The envelope of a binary request is remembered, its data never."""
    item = {"name": "X", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    head = orjson.dumps({"inputs": [item]})
    for start in range(5):
        blob = np.arange(start, start + 3, dtype="<f4").tobytes()
        decoded = decode(head + blob, tree, header=b"%d" % len(head))
        assert decoded.inputs["X"].tolist() == [[start, start + 1, start + 2]]


def test_a_header_that_covers_the_body_is_plain_json(decode: Any, tree: Signature) -> None:
    """Inference-Header-Content-Length may be given although no blob follows."""
    body = orjson.dumps({"inputs": [X]})
    assert decode(body, tree, header=b"%d" % len(body)).inputs["X"].tolist() == [[1, 2.5, 3]]


def test_raw_binary(decode: Any, tree: Signature) -> None:
    """Header 0: the body is the tensor, a batch of one, and every output comes back binary."""
    decoded = decode(np.arange(3, dtype="<f4").tobytes(), tree, header=b"0")
    assert decoded.inputs["X"].tolist() == [[0, 1, 2]]
    assert (decoded.rows, decoded.raw_binary) == (1, True)
    encoded = answer(decoded, OUTPUTS, tree)
    assert encoded.header_length is not None
    assert len(encoded.body) == encoded.header_length + 8 + 8


def test_raw_binary_finds_a_free_dimension_and_takes_bytes_whole(decode: Any) -> None:
    """One variable dimension follows from the size; BYTES is the one element that the body is."""
    free = Signature((TensorSpec("X", "INT16", (-1, -1, 2)),), ())
    assert decode(b"\x01\x00" * 6, free, header=b"0").inputs["X"].shape == (1, 3, 2)
    text = Signature((TensorSpec("X", "BYTES", (-1, 1)),), ())
    assert decode(b"\x00\xffab", text, header=b"0").inputs["X"].tolist() == [[b"\x00\xffab"]]


def test_the_answer_names_model_version_and_id(decode: Any, tree: Signature) -> None:
    """The caller's id is echoed exactly; without one the prediction id stands there."""
    body = orjson.loads(answer(decode({"inputs": [X]}, tree), OUTPUTS, tree).body)
    assert (body["model_name"], body["model_version"], body["id"]) == ("m", "1.0", "0198-id")
    assert [output["name"] for output in body["outputs"]] == ["label", "scores"]
    assert body["outputs"][1] == {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
    odd = 'a"b\\é\u2028'
    assert orjson.loads(answer(decode({"id": odd, "inputs": [X]}, tree), OUTPUTS, tree).body)["id"] == odd


def test_outputs_come_in_the_order_asked_for(decode: Any, tree: Signature) -> None:
    """Requested outputs only, in the requested order."""
    decoded = decode({"inputs": [X], "outputs": [{"name": "scores"}, {"name": "label"}]}, tree)
    names = [output["name"] for output in orjson.loads(answer(decoded, OUTPUTS, tree).body)["outputs"]]
    assert names == ["scores", "label"]


def test_an_output_overrides_the_requests_default(decode: Any, tree: Signature) -> None:
    """binary_data_output is the default that a single output's binary_data overrides."""
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}]
    decoded = decode({"inputs": [X], "outputs": wanted, "parameters": {"binary_data_output": True}}, tree)
    encoded = answer(decoded, OUTPUTS, tree)
    head = orjson.loads(encoded.body[: encoded.header_length])
    assert head["outputs"][0]["data"] == [1]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 8}
    assert encoded.body[encoded.header_length :] == OUTPUTS["scores"].tobytes()


def test_nothing_binary_means_no_header(decode: Any, tree: Signature) -> None:
    """An answer whose outputs are all JSON carries no header length."""
    wanted = [{"name": "label", "parameters": {"binary_data": False}}]
    decoded = decode({"inputs": [X], "outputs": wanted, "parameters": {"binary_data_output": True}}, tree)
    assert answer(decoded, OUTPUTS, tree).header_length is None


def test_nan_is_null_in_json_and_exact_in_binary(tree: Signature) -> None:
    """NaN and the infinities become null in JSON; binary keeps their bits."""
    outputs = {**OUTPUTS, "scores": np.array([[np.nan, -np.inf]], np.float32)}
    request = DecodedRequest({}, 1, outputs=(OutputRequest("scores"),))
    assert orjson.loads(answer(request, outputs, tree).body)["outputs"][0]["data"] == [None, None]
    exact = answer(DecodedRequest({}, 1, outputs=(OutputRequest("scores", True),)), outputs, tree)
    assert exact.body[exact.header_length :] == outputs["scores"].tobytes()


def test_bytes_outputs_are_text_or_blobs(two: Signature) -> None:
    """Text of either kind is written as text; other bytes need binary, and the refusal says so."""
    outputs = {"out": np.array([b"caf\xc3\xa9", "text"], object), "sum": np.array([[1.0], [2.0]])}
    request = DecodedRequest({}, 2)
    assert orjson.loads(answer(request, outputs, two).body)["outputs"][0]["data"] == ["café", "text"]
    outputs["out"][1] = b"\xff"
    with pytest.raises(InvalidRequestError) as caught:
        answer(request, outputs, two)
    assert "binary" in caught.value.message
    exact = answer(DecodedRequest({}, 2, outputs=(OutputRequest("out", True),)), outputs, two)
    assert exact.body[exact.header_length :] == b"\x05\x00\x00\x00caf\xc3\xa9\x01\x00\x00\x00\xff"


def test_outputs_of_another_layout_or_type_are_written_right(tree: Signature) -> None:
    """A column-major or strided array, or one of a neighbouring type, is written by its values."""
    scores = np.asfortranarray(np.arange(8, dtype=np.float64).reshape(2, 4))[:, ::2]
    outputs = {"label": np.array([1, 0], np.int32), "scores": scores}
    body = orjson.loads(answer(DecodedRequest({}, 2), outputs, tree).body)
    assert body["outputs"][1]["data"] == [0, 2, 4, 6]
    thirds = {**outputs, "scores": np.full((1, 2), 1 / 3)}
    assert b"0.33333334]" in answer(DecodedRequest({}, 1), thirds, tree).body
    exact = answer(DecodedRequest({}, 2, binary=True), outputs, tree)
    blob = exact.body[exact.header_length :]
    assert np.frombuffer(blob[:16], "<i8").tolist() == [1, 0]
    assert np.frombuffer(blob[16:], "<f4").tolist() == [0, 2, 4, 6]


def test_a_missing_output_is_our_fault(tree: Signature) -> None:
    """A model that gives no value for an output is an internal error, never a KeyError."""
    with pytest.raises(ModelyardError) as caught:
        answer(DecodedRequest({}, 1), {"label": np.array([1])}, tree)
    assert caught.value.code == "internal"


BAD = [b"", b"{", b"\xff", b"[1]", b'{"inputs":[{"name":"X"', b'{"inputs":[{}]}', b'{"inputs":1}', b"nul", b"[" * 3000]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_poisons_nothing(bad: bytes, tree: Signature) -> None:
    """A bad request, then a good one on the same parser: the good one is answered, twice."""
    good = RawRequest(orjson.dumps({"inputs": [X]}))
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            OIP.decode(RawRequest(bad), tree, CodecBounds())
        for _ in range(2):
            assert OIP.decode(good, tree, CodecBounds()).inputs["X"].tolist() == [[1, 2.5, 3]]


def test_a_tensor_outlives_the_requests_after_it(tree: Signature) -> None:
    """A decoded tensor does not change when the parser reads the next document."""
    bodies = [orjson.dumps({"inputs": [{**X, "data": [i, i, i]}]}) for i in range(50)]
    tensors = [OIP.decode(RawRequest(body), tree, CodecBounds()).inputs["X"] for body in bodies]
    gc.collect()
    assert [tensor.tolist() for tensor in tensors] == [[[i, i, i]] for i in range(50)]


def test_large_nested_bodies_are_read(decode: Any, tree: Signature) -> None:
    """A body beyond the kept parser's size is read as well, nested or flat."""
    rows = np.arange(150_000, dtype=np.float32).reshape(-1, 3)
    for data in (rows.tolist(), rows.ravel().tolist()):
        body = {"inputs": [{"name": "X", "shape": list(rows.shape), "datatype": "FP32", "data": data}]}
        np.testing.assert_array_equal(decode(body, tree).inputs["X"], rows)


def test_threads_do_not_share_a_parser(tree: Signature) -> None:
    """Decoding on and off the loop at once gives each caller its own numbers."""

    def work(number: int) -> bool:
        raw = RawRequest(orjson.dumps({"inputs": [{**X, "data": [number, number + 0.5, -number]}]}))
        expected = [[number, number + 0.5, -number]]
        return all(OIP.decode(raw, tree, CodecBounds()).inputs["X"].tolist() == expected for _ in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))
