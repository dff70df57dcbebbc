"""The predictions route: named features in, one result or one error per item out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.codec import CODECS
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    ItemError,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

GOOD = {"age": 61, "bmi": 24.5, "sex": 0}
ROUTE = Surface.PREDICTIONS


def results(request: DecodedRequest, outputs: Any, signature: Signature) -> list[Any]:
    """The results of an answer, whose other fields are checked on the way."""
    encoded = CODECS[ROUTE].encode(request, outputs, AnswerContext("m", "2", "id-1", signature))
    body = orjson.loads(encoded.body)
    assert (body["prediction_id"], body["model"], body["version"]) == ("id-1", "m", "2")
    assert [result["index"] for result in body["results"]] == list(range(len(request.items)))
    return body["results"]


def test_items_become_rows_by_name(decode: Any, tree: Signature) -> None:
    """Columns are matched by name, in whatever order an item gives them."""
    shuffled = {"sex": 1, "age": 2, "bmi": 3}
    decoded = decode({"items": [GOOD, shuffled], "subject": "p-1"}, tree, ROUTE)
    assert decoded.inputs["X"].tolist() == [[61, 24.5, 0], [2, 3, 1]]
    assert decoded.inputs["X"].dtype == np.float32
    assert (decoded.rows, decoded.items, decoded.subject) == (2, (0, 1), "p-1")


BAD_ITEMS = [
    ("missing", {"age": 1, "bmi": 2}, "field_missing", "items[1].sex"),
    ("unknown", {**GOOD, "height": 3}, "field_unknown", "items[1].height"),
    ("misspelt", {"Age": 1, "bmi": 2, "sex": 0}, "field_missing", "items[1].age"),
    ("text", {**GOOD, "bmi": "24"}, "value_invalid", "items[1].bmi"),
    ("null", {**GOOD, "bmi": None}, "value_invalid", "items[1].bmi"),
    ("boolean", {**GOOD, "sex": True}, "value_invalid", "items[1].sex"),
    ("a list", {**GOOD, "sex": [1]}, "value_invalid", "items[1].sex"),
    ("out of range", {**GOOD, "age": 1e39}, "value_out_of_range", "items[1].age"),
    ("no object", 7, "field_type", "items[1]"),
    ("empty", {}, "field_missing", "items[1].age"),
    ("positional, short", {"X": [1, 2]}, "shape_mismatch", "items[1].X"),
    ("positional, text", {"X": [1, "2", 3]}, "value_invalid", "items[1].X[1]"),
]


@pytest.mark.parametrize(("bad", "code", "field"), [c[1:] for c in BAD_ITEMS], ids=[c[0] for c in BAD_ITEMS])
def test_one_bad_item_hurts_only_itself(bad: Any, code: str, field: str, decode: Any, tree: Signature) -> None:
    """The neighbours of a bad item are rows; the bad one carries its own error."""
    decoded = decode({"items": [GOOD, bad, GOOD]}, tree, ROUTE)
    error = decoded.items[1]
    assert (decoded.items[0], decoded.items[2], decoded.rows) == (0, 1, 2)
    assert isinstance(error, ItemError)
    assert (error.code, error.detail["field"]) == (code, field)
    outputs = {"label": np.array([1, 0]), "scores": np.array([[0.25, 0.75], [1, 0]], np.float32)}
    shown = results(decoded, outputs, tree)
    assert shown[1]["error"]["code"] == code
    assert shown[2]["output"] == {"label": 0, "scores": [1.0, 0.0], "label_name": "ill"}


def test_nan_in_an_item_is_that_items_error(decode: Any, tree: Signature) -> None:
    """The token NaN is refused where it stands."""
    decoded = decode(b'{"items":[{"age":NaN,"bmi":1,"sex":1},{"age":1,"bmi":1,"sex":1}]}', tree, ROUTE)
    assert decoded.items[0].code == "value_invalid"
    assert decoded.items[1] == 0


def test_all_items_bad_needs_no_run(decode: Any, tree: Signature) -> None:
    """With no good item there are no inputs, and the answer is made without outputs."""
    decoded = decode({"items": [{}, 3]}, tree, ROUTE)
    assert (decoded.inputs, decoded.rows) == ({}, 0)
    assert all("error" in result for result in results(decoded, {}, tree))


BAD_BODIES = [
    ([], "field_type", "body"),
    ({}, "field_missing", "items"),
    ({"items": {}}, "field_type", "items"),
    ({"items": []}, "batch_empty", "items"),
    ({"items": [GOOD], "item": 1}, "field_unknown", "item"),
    ({"items": [GOOD], "subject": 4}, "field_type", "subject"),
    (b'{"items":[{"age":1,"age":2,"bmi":1,"sex":1}]}', "json_duplicate_key", "age"),
    (b'{"items":[{"age":1', "json_invalid", "body"),
    (b'{"items":NaN}', "field_type", "items"),
]


@pytest.mark.parametrize(("body", "code", "field"), BAD_BODIES)
def test_a_request_that_has_no_items_is_refused(
    body: Any, code: str, field: str, refusal: Any, tree: Signature
) -> None:
    """Where items cannot be told apart the request is refused as a whole."""
    error = refusal(body, tree, ROUTE)
    assert (error.code, error.detail["field"]) == (code, field)


def test_101_items_are_too_many(refusal: Any, decode: Any, tree: Signature) -> None:
    """The bound is inclusive and the refusal says both numbers."""
    assert decode({"items": [GOOD] * 100}, tree, ROUTE).rows == 100
    error = refusal({"items": [GOOD] * 101}, tree, ROUTE)
    assert (error.code, error.message) == ("too_many_items", "101 items were sent, 100 is the most.")
    assert refusal({"items": [GOOD] * 3}, tree, ROUTE, bounds=CodecBounds(max_items=2)).code == "too_many_items"


def test_rows_by_the_inputs_name(decode: Any, tree: Signature) -> None:
    """An item may give the whole row under the input's name, flat or nested, columns or not."""
    plain = Signature((TensorSpec("X", "FP32", (-1, 2, 2)),), tree.outputs)
    decoded = decode({"items": [{"X": [1, 2, 3, 4]}, {"X": [[1, 2], [3, 4]]}, {"X": [[1], [2]]}]}, plain, ROUTE)
    assert decoded.inputs["X"].tolist() == [[[1, 2], [3, 4]]] * 2
    assert decoded.items[2].code == "shape_mismatch"
    assert decode({"items": [{"X": [1, 2, 3]}]}, tree, ROUTE).inputs["X"].tolist() == [[1, 2, 3]]


def test_several_inputs_have_one_key_each(decode: Any, two: Signature) -> None:
    """Inputs of one element a row take the bare value; text stays text."""
    decoded = decode({"items": [{"text": "a", "n": 2**53 + 1}, {"n": [3], "text": ["é"]}, {"n": 1}]}, two, ROUTE)
    assert decoded.inputs["text"].tolist() == [[b"a"], ["é".encode()]]
    assert decoded.inputs["n"].dtype == np.int64
    assert isinstance(decoded.items[2], ItemError)


def test_free_dimensions_must_agree_within_a_request(decode: Any) -> None:
    """Where the signature leaves a dimension free, the first good item sets it for its neighbours."""
    signature = Signature((TensorSpec("X", "FP32", (-1, -1)),), (TensorSpec("Y", "FP32", (-1,)),))
    decoded = decode({"items": [{"X": [1, 2]}, {"X": [1, 2, 3]}, {"X": [3, 4]}]}, signature, ROUTE)
    assert decoded.inputs["X"].shape == (2, 2)
    assert decoded.items[1].code == "shape_mismatch"


def test_a_model_of_one_row_takes_one_item(decode: Any, refusal: Any, tree: Signature) -> None:
    """A fixed batch of one allows one item; a fixed batch of more has no rows to give out."""
    one = Signature((TensorSpec("X", "FP32", (1, 3), columns=tree.inputs[0].columns),), tree.outputs)
    assert decode({"items": [GOOD]}, one, ROUTE).inputs["X"].shape == (1, 3)
    assert refusal({"items": [GOOD] * 2}, one, ROUTE).code == "too_many_items"
    five = Signature((TensorSpec("X", "FP32", (5, 3)),), tree.outputs)
    assert refusal({"items": [GOOD]}, five, ROUTE).code == "shape_mismatch"


def test_labels_name_the_predicted_class(tree: Signature) -> None:
    """By an integer output's value, else by the highest score; never beyond the labels."""
    request = DecodedRequest({}, 2, items=(0, 1))
    outputs = {"label": np.array([1, 9]), "scores": np.array([[0.9, 0.1]] * 2, np.float32)}
    first, second = results(request, outputs, tree)
    assert first["output"]["label_name"] == "well"
    assert "label_name" not in second["output"]
    outputs["label"] = np.array([-1, 0])
    assert "label_name" not in results(request, outputs, tree)[0]["output"]
    scores = Signature(tree.inputs, tree.outputs[1:])
    shown = results(request, {"scores": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)}, scores)
    assert [result["output"]["label"] for result in shown] == ["ill", "well"]


def test_values_are_bare_where_a_row_has_one(two: Signature) -> None:
    """A row's single element is a bare value; FP32 keeps its short form, NaN is null, odd bytes are base64."""
    request = DecodedRequest({}, 2, items=(0, 1))
    outputs = {"out": np.array([b"\xff", "é"], object), "sum": np.array([[0.1], [np.nan]])}
    first, second = results(request, outputs, two)
    assert first["output"] == {"out": {"base64": "/w=="}, "sum": 0.1}
    assert second["output"] == {"out": "é", "sum": None}


def test_the_slow_and_the_quick_way_agree(decode: Any, tree: Signature) -> None:
    """A batch read all at once and the same items beside a bad one give the same rows."""
    rng = np.random.default_rng(7)
    items = [dict(zip(("age", "bmi", "sex"), row, strict=True)) for row in rng.normal(size=(20, 3)).tolist()]
    quick = decode({"items": items}, tree, ROUTE).inputs["X"]
    slow = decode({"items": [*items, {}]}, tree, ROUTE).inputs["X"]
    np.testing.assert_array_equal(quick, slow)


def test_answers_of_onnx_runtime_integers_are_written() -> None:
    """INT64 outputs that come as numpy.longlong (as ONNX Runtime gives them) are numbers in the answer."""
    taken = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("label", "INT64", (-1,)),))
    request = CODECS[Surface.PREDICTIONS].decode(RawRequest(b'{"items":[{"x":1}]}'), taken, CodecBounds())

    answer = CODECS[Surface.PREDICTIONS].encode(
        request, {"label": np.array([2**53 + 1], np.longlong)}, AnswerContext("m", "1", "p", taken)
    )

    assert orjson.loads(answer.body)["results"][0]["output"]["label"] == 2**53 + 1
