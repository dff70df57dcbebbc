"""Properties over random tensors, requests and damage."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.codec import CODECS
from modelyard.codec.json_strict import check_bounds, parse, parse_carefully
from modelyard.codec.log import decode_for_log
from modelyard.codec.oip import OipCodec
from modelyard.codec.oip_request import read_request
from modelyard.codec.signature_plan import plan_of
from modelyard.codec.tensors import to_bytes
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.core.types import (
    DATATYPES,
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

OIP = OipCodec()
BOUNDS = CodecBounds()
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def elements(datatype: str, finite: bool) -> st.SearchStrategy[Any]:
    """Values of a datatype; in JSON only finite ones exist."""
    if datatype == "BYTES":
        return st.text(max_size=5).map(str.encode) if finite else st.binary(max_size=5)
    dtype = DATATYPES[datatype]
    if dtype.kind == "f":
        return hnp.from_dtype(dtype, allow_nan=not finite, allow_infinity=not finite)
    return hnp.from_dtype(dtype)


@st.composite
def tensors(draw: st.DrawFn, finite: bool = True) -> tuple[str, np.ndarray[Any, Any]]:
    """A datatype and a tensor of it, any shape."""
    datatype = draw(st.sampled_from([name for name in DATATYPES if name != "FP16" or not finite]))
    return datatype, draw(hnp.arrays(DATATYPES[datatype], draw(SHAPES), elements=elements(datatype, finite)))


def signature_of(datatype: str, array: np.ndarray[Any, Any]) -> Signature:
    spec = TensorSpec("X", datatype, (-1, *array.shape[1:]))
    return Signature((spec,), (spec,))


def json_values(array: np.ndarray[Any, Any]) -> Any:
    return np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == object and array.size else array


def json_request(datatype: str, array: np.ndarray[Any, Any], nested: bool) -> RawRequest:
    values = json_values(array)
    data = values.tolist() if nested else values.ravel().tolist()
    item = {"name": "X", "shape": list(array.shape), "datatype": datatype, "data": data}
    return RawRequest(json.dumps({"inputs": [item]}).encode())


def binary_request(datatype: str, array: np.ndarray[Any, Any]) -> RawRequest:
    blob = to_bytes(array, datatype)
    parameters = {"binary_data_size": len(blob)}
    item = {"name": "X", "shape": list(array.shape), "datatype": datatype, "parameters": parameters}
    head = orjson.dumps({"inputs": [item], "parameters": {"binary_data_output": True}})
    return RawRequest(head + blob, None, b"%d" % len(head))


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    np.testing.assert_array_equal(one, other)


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_json_nested_and_binary_are_the_same_tensor(case: tuple[str, Any]) -> None:
    """Every datatype, every shape: three ways to send it, one tensor."""
    datatype, array = case
    signature = signature_of(datatype, array)
    for raw in (
        json_request(datatype, array, False),
        json_request(datatype, array, True),
        binary_request(datatype, array),
    ):
        same(OIP.decode(raw, signature, BOUNDS).inputs["X"], array)


@settings(max_examples=150, deadline=None)
@given(tensors(finite=False))
def test_binary_carries_every_bit_both_ways(case: tuple[str, Any]) -> None:
    """NaN, infinities and bytes that are no text survive the round trip in binary."""
    datatype, array = case
    signature = signature_of(datatype, array)
    request = OIP.decode(binary_request(datatype, array), signature, BOUNDS)
    same(request.inputs["X"], array)
    encoded = OIP.encode(request, {"X": array}, AnswerContext("m", "1", "id", signature))
    assert encoded.header_length is not None
    head = orjson.loads(encoded.body[: encoded.header_length])["outputs"][0]
    assert (head["shape"], head["datatype"]) == (list(array.shape), datatype)
    assert encoded.body[encoded.header_length :] == to_bytes(array, datatype)


@settings(max_examples=150, deadline=None)
@given(tensors())
def test_a_json_answer_can_be_sent_back(case: tuple[str, Any]) -> None:
    """An output written as JSON, sent as an input, is the same tensor (FP32 included)."""
    datatype, array = case
    signature = signature_of(datatype, array)
    encoded = OIP.encode(DecodedRequest({}, 0), {"X": array}, AnswerContext("m", "1", "id", signature))
    output = orjson.loads(encoded.body)["outputs"][0]
    same(OIP.decode(RawRequest(orjson.dumps({"inputs": [output]})), signature, BOUNDS).inputs["X"], array)


def careful(raw: RawRequest, signature: Signature) -> DecodedRequest:
    return read_request(raw.body, memoryview(b""), False, plan_of(signature), BOUNDS)


def outcome(decode: Any, *args: Any) -> Any:
    try:
        request = decode(*args)
    except ModelyardError as error:
        return error.code, error.detail.get("field")
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in request.inputs.items()}, (
        request.rows,
        request.client_id,
        request.outputs,
        request.binary,
        request.subject,
    )


NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BOOL", "FP16")]
EXTRAS: list[dict[str, Any]] = [
    {},
    {"id": "a"},
    {"id": "[a]"},
    {"outputs": [{"name": "X"}]},
    {"outputs": [{"name": "X", "parameters": {"binary_data": True}}], "id": "b"},
    {"parameters": {"subject": "p", "binary_data_output": True, "list": [1, [2]]}},
    {"outputs": [], "parameters": {}},
    {"other": [1]},
    {"outputs": [{"name": "Y"}]},
]
LOOSE = st.recursive(
    st.one_of(st.integers(-300, 300), st.floats(allow_nan=False, allow_infinity=False), st.just([]), st.just("1")),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore:overflow encountered in dot:RuntimeWarning:modelyard.codec.oip")
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NUMERIC),
    st.sampled_from(EXTRAS),
    st.lists(st.integers(0, 3), max_size=3),
    st.one_of(
        LOOSE, st.lists(st.integers(0, 9), max_size=9), st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3)
    ),
)
def test_the_quick_path_has_no_opinion_of_its_own(datatype: str, extra: Any, shape: list[int], data: Any) -> None:
    """For any data and shape, right or wrong, both paths give the same tensors or the same refusal."""
    spec = TensorSpec("X", datatype, (-1, *(-1 for _ in shape[1:])))
    signature = Signature((spec,), (spec,))
    item = {"name": "X", "shape": shape, "datatype": datatype, "data": data}
    raw = RawRequest(orjson.dumps({"inputs": [item], **extra}))
    assert outcome(OIP.decode, raw, signature, BOUNDS) == outcome(careful, raw, signature)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NUMERIC), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.data())
def test_usual_requests_take_the_quick_path(
    datatype: str, rows: int, width: int, nested: bool, data: st.DataObject
) -> None:
    """The quick path is taken, not just equal: a right request of one numeric input never needs the careful one."""
    array = data.draw(hnp.arrays(DATATYPES[datatype], (rows, width), elements=elements(datatype, True)))
    if datatype == "FP32":
        assume(float(np.abs(array).max(initial=0)) < 1e37)
    signature = signature_of(datatype, array)
    plan = plan_of(signature)
    raw = json_request(datatype, array, nested)
    assert plan.single is not None
    quick = OIP._quick(raw.body, plan, plan.single, BOUNDS)
    assert quick is not None
    same(quick.inputs["X"], array)


def damage(body: bytes, data: st.DataObject) -> bytes:
    """The body with a few bytes changed, cut out or put in."""
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        what = data.draw(st.sampled_from(["change", "cut", "insert"]))
        piece = data.draw(
            st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b'"', b"[", b"{}", b"-", b"e9", b":"]))
        )
        damaged[at : at + (0 if what == "insert" else len(piece))] = b"" if what == "cut" else piece
    return bytes(damaged)


TREE = Signature((TensorSpec("X", "FP32", (-1, 3), columns=("a", "b", "c")),), (TensorSpec("Y", "FP32", (-1,)),))
MIXED = Signature(
    (TensorSpec("t", "BYTES", (-1,)), TensorSpec("n", "INT32", (-1, 2))), (TensorSpec("Y", "FP32", (-1,)),)
)
BLOB = b"\x01\x00\x00\x00a\x00\x00\x00\x00"
HEAD = orjson.dumps(
    {
        "inputs": [
            {"name": "n", "shape": [1, 2], "datatype": "INT32", "data": [[1, 2]]},
            {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(BLOB)}},
        ]
    }
)
SAMPLES: list[tuple[Surface, Signature, bytes, bytes | None]] = [
    (Surface.OIP, TREE, json_request("FP32", np.ones((2, 3), np.float32), True).body, None),
    (Surface.OIP, MIXED, HEAD + BLOB, b"%d" % len(HEAD)),
    (Surface.OIP, TREE, bytes(12), b"0"),
    (Surface.PREDICTIONS, TREE, b'{"items":[{"a":1,"b":2,"c":3},{"X":[1,2,3]}],"subject":"s"}', None),
    (Surface.PREDICTIONS, MIXED, b'{"items":[{"t":"x","n":[1,2]},{"t":["y"],"n":[[1],[2]]}]}', None),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damage_never_raises_anything_unplanned(sample: Any, data: st.DataObject) -> None:
    """Whatever the bytes, the answer is a tensor or a refusal with JSON detail; then a good request still works."""
    surface, signature, body, header = sample
    raw = RawRequest(damage(body, data), None, header)
    codec = CODECS[surface]
    try:
        request = codec.decode(raw, signature, BOUNDS)
    except InvalidRequestError as error:
        orjson.dumps(dict(error.detail))
        orjson.dumps(error.message)
    else:
        for mark in request.items:
            if not isinstance(mark, int):
                orjson.dumps(dict(mark.detail))
        outputs = {"Y": np.zeros(max(request.rows, 1), np.float32)}
        answer = codec.encode(request, outputs, AnswerContext("m", "1", "id", signature))
        orjson.dumps(decode_for_log(surface, raw, answer, signature, ()))
        orjson.dumps(decode_for_log(surface, raw, answer, signature, ("a",)))
    refused = EncodedAnswer(b'{"error":"e","code":"c","detail":{}}')
    orjson.dumps(decode_for_log(surface, raw, refused, signature, ("a",)))
    codec.decode(RawRequest(body, None, header), signature, BOUNDS)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_both_parsers_read_the_same(value: Any) -> None:
    """Integers and texts come back exactly from the quick and from the careful parser."""
    body = json.dumps(value).encode()
    with contextlib.suppress(InvalidRequestError):
        check_bounds(body, BOUNDS)
        assert parse(body, BOUNDS) == value
        assert parse_carefully(body) == value


@settings(max_examples=200, deadline=None)
@given(JSON, st.integers(1, 6))
def test_depth_is_counted_outside_strings(value: Any, most: int) -> None:
    """A document passes exactly if its own nesting keeps the bound, whatever its strings hold."""

    def depth(item: Any) -> int:
        children = item if isinstance(item, list) else item.values() if isinstance(item, dict) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    body = json.dumps({"[[{": value}).encode()
    try:
        parse(body, CodecBounds(max_json_depth=most))
        refused = False
    except InvalidRequestError as error:
        refused = error.code == "json_too_deep"
    assert refused == (1 + depth(value) > most)


def test_escaped_quotes_do_not_slow_the_scan() -> None:
    """A body of escaped quotes without an end is scanned once, not once per quote."""
    body = b'["' + b'\\"' * 500_000 + b"[" * 200
    with pytest.raises(InvalidRequestError) as caught:
        parse(body, BOUNDS)
    assert caught.value.code in ("json_invalid", "json_too_deep")
