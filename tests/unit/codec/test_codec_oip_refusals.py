"""Every way in which an Open Inference Protocol request can be wrong gets its code and its field."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.core.types import CodecBounds, Signature, TensorSpec

X = {"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


def x(**changes: Any) -> dict[str, Any]:
    """A good request with some fields of its input changed; None leaves the field out."""
    item = {key: value for key, value in {**X, **changes}.items() if value is not ...}
    return {"inputs": [item]}


BAD_BODIES: list[tuple[str, Any, str, str]] = [
    ("not an object", [1], "field_type", "body"),
    ("no inputs", {}, "field_missing", "inputs"),
    ("inputs is no list", {"inputs": {}}, "field_type", "inputs"),
    ("inputs is empty", {"inputs": []}, "input_missing", "inputs"),
    ("input is no object", {"inputs": [3]}, "field_type", "inputs[0]"),
    ("no name", x(name=...), "field_missing", "inputs[0].name"),
    ("name is no text", x(name=3), "field_type", "inputs[0].name"),
    ("unknown name", x(name="Z"), "input_unknown", "inputs[0].name"),
    ("sent twice", {"inputs": [X, X]}, "input_duplicate", "inputs[1].name"),
    ("no datatype", x(datatype=...), "field_missing", "inputs[0].datatype"),
    ("datatype is no text", x(datatype=7), "field_type", "inputs[0].datatype"),
    ("unknown datatype", x(datatype="FLOAT"), "datatype_unknown", "inputs[0].datatype"),
    ("other datatype", x(datatype="FP64"), "datatype_mismatch", "inputs[0].datatype"),
    ("no shape", x(shape=...), "field_missing", "inputs[0].shape"),
    ("shape is a number", x(shape=3), "shape_invalid", "inputs[0].shape"),
    ("negative dim", x(shape=[-1, 3]), "shape_invalid", "inputs[0].shape"),
    ("fraction", x(shape=[1.0, 3]), "shape_invalid", "inputs[0].shape"),
    ("boolean dim", x(shape=[True, 3]), "shape_invalid", "inputs[0].shape"),
    ("dims overflow", x(shape=[2**31 - 1, 2**31 - 1]), "shape_invalid", "inputs[0].shape"),
    ("64-bit overflow", x(shape=[2**63, 2]), "shape_invalid", "inputs[0].shape"),
    ("empty but huge", x(shape=[2**30, 0], data=[]), "shape_invalid", "inputs[0].shape"),
    ("33 dims", x(shape=[1] * 33), "shape_invalid", "inputs[0].shape"),
    ("other rank", x(shape=[3]), "shape_mismatch", "inputs[0].shape"),
    ("other width", x(shape=[1, 4], data=[1, 2, 3, 4]), "shape_mismatch", "inputs[0].shape"),
    ("no data", x(data=...), "field_missing", "inputs[0].data"),
    ("data is null", x(data=None), "field_type", "inputs[0].data"),
    ("data is a number", x(data=3), "field_type", "inputs[0].data"),
    ("too few", x(data=[1, 2]), "element_count_mismatch", "inputs[0].data"),
    ("too many", x(data=[1, 2, 3, 4]), "element_count_mismatch", "inputs[0].data"),
    ("shape says more", x(shape=[2, 3]), "element_count_mismatch", "inputs[0].data"),
    ("ragged", x(shape=[2, 3], data=[[1, 2, 3, 4], [5, 6]]), "element_count_mismatch", "inputs[0].data"),
    ("ragged with empty", x(shape=[2, 3], data=[[1, 2, 3, 4, 5, 6], []]), "element_count_mismatch", "inputs[0].data"),
    ("half nested", x(data=[[1, 2], 3]), "element_count_mismatch", "inputs[0].data"),
    ("hidden empty list", x(data=[1, 2, 3, []]), "element_count_mismatch", "inputs[0].data"),
    ("nested otherwise", x(data=[[[1, 2, 3]]]), "element_count_mismatch", "inputs[0].data"),
    ("nested too deep", x(data=[[[1], [2], [3]]]), "value_invalid", "inputs[0].data[0]"),
    ("text", x(data=[1, "2", 3]), "value_invalid", "inputs[0].data[1]"),
    ("NaN as text", x(data=[1, 2, "NaN"]), "value_invalid", "inputs[0].data[2]"),
    ("null", x(data=[None, 2, 3]), "value_invalid", "inputs[0].data[0]"),
    ("boolean", x(data=[1, True, 3]), "value_invalid", "inputs[0].data[1]"),
    ("object", x(data=[1, {}, 3]), "value_invalid", "inputs[0].data[1]"),
    ("beyond FP32", x(data=[1, 1e39, 3]), "value_out_of_range", "inputs[0].data[1]"),
    ("just beyond FP32", x(data=[-3.5e38, 1, 3]), "value_out_of_range", "inputs[0].data[0]"),
    ("parameters is no object", x(parameters=3), "field_type", "inputs[0].parameters"),
    (
        "data and blob",
        x(parameters={"binary_data_size": 12}),
        "header_length_invalid",
        "Inference-Header-Content-Length",
    ),
    ("request parameters", {**x(), "parameters": []}, "field_type", "parameters"),
    (
        "binary_data_output",
        {**x(), "parameters": {"binary_data_output": 1}},
        "parameter_invalid",
        "parameters.binary_data_output",
    ),
    ("id is a number", {**x(), "id": 7}, "field_type", "id"),
    ("subject too long", {**x(), "parameters": {"subject": "é" * 129}}, "parameter_invalid", "parameters.subject"),
    ("subject empty", {**x(), "parameters": {"subject": ""}}, "parameter_invalid", "parameters.subject"),
    ("subject is a number", {**x(), "parameters": {"subject": 1}}, "field_type", "parameters.subject"),
    ("outputs is no list", {**x(), "outputs": "label"}, "field_type", "outputs"),
    ("output is no object", {**x(), "outputs": ["label"]}, "field_type", "outputs[0]"),
    ("output without name", {**x(), "outputs": [{}]}, "field_missing", "outputs[0].name"),
    ("output's name", {**x(), "outputs": [{"name": 1}]}, "field_type", "outputs[0].name"),
    ("unknown output", {**x(), "outputs": [{"name": "Y"}]}, "output_unknown", "outputs[0].name"),
    ("output twice", {**x(), "outputs": [{"name": "label"}] * 2}, "output_duplicate", "outputs[1].name"),
    (
        "binary_data",
        {**x(), "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
        "parameter_invalid",
        "outputs[0].parameters.binary_data",
    ),
]


@pytest.mark.parametrize(("body", "code", "field"), [c[1:] for c in BAD_BODIES], ids=[c[0] for c in BAD_BODIES])
def test_a_wrong_request_is_refused_by_name(body: Any, code: str, field: str, refusal: Any, tree: Signature) -> None:
    """The code and the field name what is wrong, and the detail says what was expected."""
    error = refusal(body, tree)
    assert (error.code, error.detail["field"]) == (code, field)
    assert "expected" in error.detail


GOOD = orjson.dumps({"inputs": [X]})
BAD_TEXTS: list[tuple[str, bytes, str, str | None]] = [
    ("nothing", b"", "json_invalid", "body"),
    ("truncated", GOOD[:-3], "json_invalid", "body"),
    ("two documents", GOOD + GOOD, "json_invalid", "body"),
    ("not UTF-8", GOOD.replace(b"X", b"\xff"), "json_invalid", "body"),
    ("single quotes", GOOD.replace(b'"', b"'"), "json_invalid", "body"),
    ("trailing comma", GOOD.replace(b"3]}", b"3,]}"), "json_invalid", "body"),
    ("thousands of digits", GOOD.replace(b"2,3]}", b"2," + b"9" * 5000 + b"]}"), "json_invalid", "body"),
    ("NaN", GOOD.replace(b"2,3]}", b"NaN,3]}"), "value_invalid", "inputs[0].data[1]"),
    ("-Infinity", GOOD.replace(b"2,3]}", b"2,-Infinity]}"), "value_invalid", "inputs[0].data[2]"),
    ("NaN beside the inputs", GOOD[:-1] + b',"note":NaN}', "value_invalid", "note"),
    ("beyond doubles", GOOD.replace(b"2,3]}", b"1e999,3]}"), "value_out_of_range", "inputs[0].data[1]"),
    ("inputs twice", b'{"inputs":[],' + GOOD[1:], "json_duplicate_key", "inputs"),
    ("name twice", GOOD.replace(b'"name"', b'"name":"X","name"'), "json_duplicate_key", "name"),
    ("data twice", GOOD.replace(b'"data"', b'"data":[1,2,3],"data"'), "json_duplicate_key", "data"),
    ("escaped twin", GOOD.replace(b'"data"', b'"d\\u0061ta":[1,2,3],"data"'), "json_duplicate_key", "data"),
    ("id twice", b'{"id":"a","id":"b",' + GOOD[1:], "json_duplicate_key", "id"),
    ("unknown twice", b'{"a":1,"a":2,' + GOOD[1:], "json_duplicate_key", "a"),
    ("parameter twice", GOOD[:-1] + b',"parameters":{"a":1,"a":1}}', "json_duplicate_key", "a"),
    ("output twice over", GOOD[:-1] + b',"outputs":[{"name":"label","name":"label"}]}', "json_duplicate_key", "name"),
    ("deep", GOOD.replace(b"[1,2,3]", b"[" * 200 + b"]" * 200), "json_too_deep", "body"),
    ("deeper than any stack", b"[" * 100_000, "json_too_deep", "body"),
    ("lone surrogate as id", b'{"id":"\\ud800",' + GOOD[1:], "field_type", "id"),
]


@pytest.mark.parametrize(("body", "code", "field"), [c[1:] for c in BAD_TEXTS], ids=[c[0] for c in BAD_TEXTS])
def test_wrong_json_is_refused_by_name(body: bytes, code: str, field: str, refusal: Any, tree: Signature) -> None:
    """Text that is not one clean JSON document is refused, duplicate keys at every level included."""
    error = refusal(body, tree)
    assert (error.code, error.detail["field"]) == (code, field)


def test_too_many_values_are_refused_before_they_are_built(refusal: Any, tree: Signature) -> None:
    """A body with more values than the bound is refused, though commas in strings do not count."""
    bounds = CodecBounds(max_json_values=50)
    body = x(shape=[20, 3], data=[1.0] * 60)
    assert refusal(body, tree, bounds=bounds).code == "json_too_many_values"


def test_commas_in_strings_are_no_values(decode: Any, tree: Signature) -> None:
    """Only real values count towards the bound."""
    body = {**x(), "id": "a," * 100}
    assert decode(body, tree, bounds=CodecBounds(max_json_values=50)).client_id == "a," * 100


def test_an_input_that_is_missing_is_named(refusal: Any, two: Signature) -> None:
    """Of two inputs the one that was not sent is named, with an example."""
    error = refusal({"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [1]}]}, two)
    assert error.code == "input_missing"
    assert error.detail["example"]["name"] == "text"


INTEGERS = [
    ("INT8", 128),
    ("INT8", -129),
    ("UINT8", -1),
    ("UINT8", 256),
    ("INT16", 2**15),
    ("UINT16", 2**16),
    ("INT32", 2**31),
    ("UINT32", 2**32),
    ("INT64", 2**63),
    ("INT64", -(2**63) - 1),
    ("UINT64", 2**64),
    ("UINT64", -1),
    ("INT64", 10**30),
    ("BOOL", 2),
]


@pytest.mark.parametrize(("datatype", "value"), INTEGERS)
def test_integers_outside_the_datatype_are_refused(datatype: str, value: int, refusal: Any) -> None:
    """No integer wraps around silently."""
    signature = Signature((TensorSpec("X", datatype, (-1,)),), ())
    body = b'{"inputs":[{"name":"X","shape":[2],"datatype":"%b","data":[0,%d]}]}' % (datatype.encode(), value)
    error = refusal(body, signature)
    assert error.code == ("value_invalid" if datatype == "BOOL" else "value_out_of_range")
    assert error.detail["field"] == "inputs[0].data[1]"


def test_a_fraction_is_no_integer(refusal: Any) -> None:
    """1.5 and 1.0 are refused for an integer input: nothing is rounded for the caller."""
    signature = Signature((TensorSpec("X", "INT32", (-1,)),), ())
    for value in (1.5, 1.0):
        error = refusal({"inputs": [{"name": "X", "shape": [1], "datatype": "INT32", "data": [value]}]}, signature)
        assert error.code == "value_invalid"


def test_fp16_in_json_is_refused_with_a_hint(refusal: Any) -> None:
    """FP16 travels in binary only, in and out, and the answer says so."""
    signature = Signature((TensorSpec("X", "FP16", (-1,)),), (TensorSpec("Y", "FP16", (-1,)),))
    wanted = [{"name": "Y", "parameters": {"binary_data": True}}]
    body = {"inputs": [{"name": "X", "shape": [1], "datatype": "FP16", "data": [1]}], "outputs": wanted}
    error = refusal(body, signature)
    assert (error.code, error.detail["field"]) == ("datatype_mismatch", "inputs[0].data")
    assert "binary" in error.message
    del body["outputs"]
    assert refusal(body, signature).detail["field"] == "outputs"


def binary(size: int, blob: bytes, **changes: Any) -> tuple[bytes, bytes]:
    """A binary request for the tree and its header length."""
    head = orjson.dumps(x(data=..., parameters={"binary_data_size": size}, **changes))
    return head + blob, b"%d" % len(head)


BLOB = np.arange(3, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("size", "blob"), [(12, BLOB[:-1]), (12, BLOB + b"x"), (8, BLOB[:8]), (16, BLOB + b"1234"), (0, b""), (8, BLOB)]
)
def test_a_blob_that_lies_about_its_length_is_refused(size: int, blob: bytes, refusal: Any, tree: Signature) -> None:
    """Declared size, shape and body must agree."""
    body, header = binary(size, blob)
    assert refusal(body, tree, header=header).code == "binary_size_mismatch"


@pytest.mark.parametrize("size", [-1, 1.5, "12", True, 2**70])
def test_a_blob_size_is_a_count(size: Any, refusal: Any, tree: Signature) -> None:
    """binary_data_size must be a whole number of bytes that the body holds."""
    head = b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":%b}}]}'
    text = str(size).encode() if type(size) is int else orjson.dumps(size)
    head = head % text
    code = "binary_size_mismatch" if size == 2**70 else "parameter_invalid"
    error = refusal(head + BLOB, tree, header=b"%d" % len(head))
    # an integer beyond 64 bits is a float to one parser and an integer to the other; refused either way
    assert error.code in (code, "parameter_invalid")


@pytest.mark.parametrize(
    "header", [b"-1", b"1e3", b"abc", b"", b" ", b"99999", b"4294967296", b"9" * 400, b"+5", b"1.0"]
)
def test_a_wrong_header_length_is_refused(header: bytes, refusal: Any, tree: Signature) -> None:
    """Inference-Header-Content-Length is the length of a part of the body, in digits."""
    body, _ = binary(12, BLOB)
    assert refusal(body, tree, header=header).code == "header_length_invalid"


def test_data_and_blob_together_are_refused(refusal: Any, tree: Signature) -> None:
    """An input is sent one way or the other."""
    head = orjson.dumps(x(parameters={"binary_data_size": 12}))
    assert refusal(head + BLOB, tree, header=b"%d" % len(head)).code == "parameter_invalid"


@pytest.mark.parametrize(
    "blob",
    [b"\x05\x00\x00\x00abc", b"\x01\x00", struct.pack("<I", 2**32 - 1) + b"a", b"\x01\x00\x00\x00abc", b"\x00" * 3],
)
def test_bytes_elements_that_lie_are_refused(blob: bytes, refusal: Any) -> None:
    """Each element's length must lie inside the blob, and nothing may follow the last."""
    signature = Signature((TensorSpec("X", "BYTES", (-1,)),), ())
    item = {"name": "X", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    head = orjson.dumps({"inputs": [item]})
    assert refusal(head + blob, signature, header=b"%d" % len(head)).code == "binary_size_mismatch"


def test_a_boolean_byte_is_0_or_1(refusal: Any) -> None:
    """Another byte would be true in one library and undefined in the next."""
    signature = Signature((TensorSpec("X", "BOOL", (-1,)),), ())
    item = {"name": "X", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    head = orjson.dumps({"inputs": [item]})
    assert refusal(head + b"\x01\x02", signature, header=b"%d" % len(head)).code == "value_invalid"


def test_raw_binary_needs_one_plain_input(refusal: Any, two: Signature, tree: Signature) -> None:
    """A raw body is refused for two inputs, for a wrong size, and for two free dimensions."""
    assert refusal(b"1234", two, header=b"0").code == "header_length_invalid"
    assert refusal(b"12345", tree, header=b"0").code == "binary_size_mismatch"
    free = Signature((TensorSpec("X", "FP32", (-1, -1, -1)),), ())
    assert refusal(b"1234", free, header=b"0").code == "header_length_invalid"
    odd = Signature((TensorSpec("X", "FP32", (-1, -1, 2)),), ())
    assert refusal(b"1234", odd, header=b"0").code == "binary_size_mismatch"
