"""TensorFlow Serving's rows and columns, MLflow's and SageMaker's `/invocations`: the same rows, whatever the form."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.codec import CODECS
from modelyard.codec.log import decode_for_log
from modelyard.core.errors import MediaTypeError, ModelyardError
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

TF, INVOKED = Surface.TFSERVING, Surface.INVOCATIONS
ROWS = np.array([[1, 2.5, 3], [4, 5, 6]], np.float32)
RECORDS: list[dict[str, Any]] = [{"age": 1, "bmi": 2.5, "sex": 3}, {"age": 4, "bmi": 5, "sex": 6}]
PLAIN = Signature((TensorSpec("X", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),))
Refusal = Callable[..., ModelyardError]


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def decode(surface: Surface, body: Any, signature: Signature, content_type: str | None = None) -> DecodedRequest:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    raw = RawRequest(data, content_type.encode() if content_type else None)
    return CODECS[surface].decode(raw, signature, CodecBounds())


def answer(surface: Surface, request: DecodedRequest, outputs: Any, signature: Signature) -> Any:
    return json.loads(CODECS[surface].encode(request, outputs, AnswerContext("m", "1", "id", signature)).body)


JSON_FORMS: list[tuple[tuple[Surface, ...], Any]] = [
    ((TF, INVOKED), {"instances": ROWS.tolist()}),
    ((TF, INVOKED), {"instances": [{"X": row} for row in ROWS.tolist()]}),
    ((TF, INVOKED), {"instances": RECORDS}),
    ((TF, INVOKED), {"inputs": ROWS.tolist()}),
    ((TF, INVOKED), {"inputs": {"X": ROWS.tolist()}}),
    ((TF, INVOKED), {"inputs": {"sex": [3, 6], "age": [1, 4], "bmi": [[2.5], [5]]}}),
    ((TF,), {"signature_name": "serving_default", "instances": ROWS.tolist()}),
    ((INVOKED,), {"dataframe_split": {"columns": ["age", "bmi", "sex"], "index": [0, 1], "data": ROWS.tolist()}}),
    ((INVOKED,), {"dataframe_split": {"columns": ["sex", "id", "age", "bmi"], "data": [[3, 0, 1, 2.5], [6, 0, 4, 5]]}}),
    ((INVOKED,), {"dataframe_split": {"data": ROWS.tolist()}}),
    ((INVOKED,), {"dataframe_split": {"columns": ["X"], "data": [[row] for row in ROWS.tolist()]}}),
    ((INVOKED,), {"dataframe_records": RECORDS}),
    ((INVOKED,), {"dataframe_records": [{**row, "note": None} for row in RECORDS], "params": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("surface", "body"), [(s, body) for surfaces, body in JSON_FORMS for s in surfaces])
def test_every_json_form_is_the_same_tensor(surface: Surface, body: Any, tree: Signature) -> None:
    """Rows, columns, records, split, named or not: one tensor, and one record in the log."""
    request = decode(surface, body, tree)
    np.testing.assert_array_equal(request.inputs["X"], ROWS)
    assert request.inputs["X"].dtype == np.float32
    assert request.rows == 2
    assert request.columnar is (surface is TF and "inputs" in body)
    inputs, _ = logged(surface, orjson.dumps(body), tree)
    assert inputs == {"X": RECORDS}


OTHER_FORMS = [
    (b"age,bmi,sex\n1,2.5,3\n4,5,6\n", "text/csv"),
    (b"\xef\xbb\xbfsex,age,note,bmi\r\n3,1,a,2.5\r\n6,4,b,5", "text/csv; charset=utf-8"),
    (b"1,2.5,3\n4,5,6", "text/csv"),
    (b" 1 ,+2.5,3.\n\n4e0,.5e1,6\n", "text/csv; header=absent"),
    (b'"age","bmi","sex"\n"1","2.5","3"\n4,5,6', 'text/csv; header="present"'),
    (npy(ROWS), "application/x-npy"),
    (npy(np.asfortranarray(ROWS.astype(np.float64))), "application/x-npy"),
    (orjson.dumps({"instances": ROWS.tolist()}), "application/json; charset=UTF-8"),
]


@pytest.mark.parametrize(("body", "content_type"), OTHER_FORMS)
def test_csv_and_arrays_are_the_same_tensor(body: bytes, content_type: str, tree: Signature) -> None:
    """CSV with and without a header, its columns in any order, and NumPy's file."""
    request = decode(INVOKED, body, tree, content_type)
    np.testing.assert_array_equal(request.inputs["X"], ROWS)
    assert request.inputs["X"].flags.writeable
    assert logged(INVOKED, body, tree, content_type)[0] == {"X": RECORDS}


def test_without_column_names_the_order_counts() -> None:
    """A model that does not name its columns takes a data frame in the frame's own order, and a CSV header as one."""
    for body, content_type in (
        ({"dataframe_split": {"columns": ["b", "a", "c"], "data": ROWS.tolist()}}, None),
        ({"dataframe_records": [dict(zip("bac", row, strict=True)) for row in ROWS.tolist()]}, None),
        (b"b,a,c\n1,2.5,3\n4,5,6", "text/csv"),
        (b"0,1,2\n1,2.5,3\n4,5,6", "text/csv;header=present"),
    ):
        np.testing.assert_array_equal(decode(INVOKED, body, PLAIN, content_type).inputs["X"], ROWS)
    assert decode(INVOKED, b"0,1,2\n1,2.5,3", PLAIN, "text/csv").rows == 2


def test_several_inputs(two: Signature) -> None:
    """Named inputs in every form; an input of one element a row takes bare values; text stays text in CSV."""
    for surface, body, content_type in (
        (TF, {"instances": [{"text": "a", "n": 1}, {"text": {"b64": "Yg=="}, "n": 2}]}, None),
        (TF, {"instances": [{"text": ["a"], "n": 1}, {"text": [{"b64": "Yg=="}], "n": 2}]}, None),
        (TF, {"inputs": {"text": [["a"], ["b"]], "n": [1, 2]}}, None),
        (INVOKED, {"dataframe_records": [{"n": 1, "text": "a"}, {"n": 2, "text": "b"}]}, None),
        (INVOKED, {"dataframe_split": {"columns": ["n", "text"], "data": [[1, "a"], [2, "b"]]}}, None),
        (INVOKED, b"n,text\n1,a\n2,b", "text/csv"),
        (INVOKED, b"a,1\nb,2", "text/csv; header=absent"),
    ):
        request = decode(surface, body, two, content_type)
        assert request.inputs["text"].tolist() == [[b"a"], [b"b"]]
        assert request.inputs["n"].tolist() == [1, 2]


def test_whole_numbers_stay_exact(two: Signature) -> None:
    """Beyond 2^53 no form goes through a float."""
    big = 2**53 + 1
    for surface, body, content_type in (
        (TF, {"inputs": {"text": ["a"], "n": [big]}}, None),
        (INVOKED, f"text,n\na,{big}".encode(), "text/csv"),
    ):
        assert decode(surface, body, two, content_type).inputs["n"].tolist() == [big]
    whole = Signature((TensorSpec("n", "INT64", (-1, 1)),), (TensorSpec("m", "INT64", (-1, 1)),))
    request = decode(INVOKED, npy(np.array([big])), whole, "application/x-npy")
    assert request.inputs["n"].tolist() == [[big]]
    assert answer(INVOKED, request, {"m": np.array([[big]])}, whole) == {"predictions": [[big]]}


def test_bytes_travel_in_base64() -> None:
    """`{"b64": …}` in; out where the name ends in `_bytes`, and where text could not carry it."""
    signature = Signature(
        (TensorSpec("image", "BYTES", (-1,)),),
        (TensorSpec("thumb_bytes", "BYTES", (-1,)), TensorSpec("name", "BYTES", (-1,))),
    )
    request = decode(TF, {"instances": [{"b64": "/w=="}, "text"]}, signature)
    assert request.inputs["image"].tolist() == [b"\xff", b"text"]
    values = np.array([b"ok", b"\xff"], object)
    said = answer(TF, request, {"thumb_bytes": values, "name": values}, signature)
    assert said["predictions"] == [
        {"thumb_bytes": {"b64": "b2s="}, "name": "ok"},
        {"thumb_bytes": {"b64": "/w=="}, "name": {"b64": "/w=="}},
    ]
    raw = RawRequest(b'{"instances":["a","b"]}')
    _, outputs = decode_for_log(TF, raw, EncodedAnswer(orjson.dumps(said)), signature, ())
    assert outputs == {"thumb_bytes": ["ok", {"base64": "/w=="}], "name": ["ok", {"base64": "/w=="}]}


def test_one_output_has_no_name_several_have(tree: Signature) -> None:
    """TensorFlow Serving's shape rules for `predictions` and `outputs`; every shape kept, not a number is null."""
    label, scores = np.array([1, 0]), np.array([[0.25, 0.75], [1, np.nan]], np.float32)
    rows, columns = (decode(TF, {key: ROWS.tolist()}, tree) for key in ("instances", "inputs"))
    both = {"label": label, "scores": scores}
    assert answer(TF, rows, both, tree) == {
        "predictions": [{"label": 1, "scores": [0.25, 0.75]}, {"label": 0, "scores": [1, None]}]
    }
    assert answer(TF, columns, both, tree) == {"outputs": {"label": [1, 0], "scores": [[0.25, 0.75], [1, None]]}}
    assert answer(INVOKED, columns, both, tree) == answer(TF, rows, both, tree)
    one = {"y": np.array([[0.1], [7]], np.float32)}
    assert answer(TF, rows, one, PLAIN) == {"predictions": [[0.1], [7]]}
    assert answer(TF, columns, one, PLAIN) == {"outputs": [[0.1], [7]]}


def logged(
    surface: Surface, body: bytes, signature: Signature, content_type: str | None = None, redaction: Any = ()
) -> tuple[Any, Any]:
    """Decodes, answers, and logs."""
    request = decode(surface, body, signature, content_type)
    outputs = {"label": np.array([1, 0]), "scores": np.array([[0.25, 0.75], [1, 0]], np.float32)}
    encoded = CODECS[surface].encode(request, outputs, AnswerContext("m", "1", "id", signature))
    raw = RawRequest(body, content_type.encode() if content_type else None)
    values = decode_for_log(surface, raw, encoded, signature, redaction)
    orjson.dumps(values)
    return values


@pytest.mark.parametrize(
    ("surface", "body", "content_type"),
    [
        (TF, b'{"instances":[[41,2,3],[42,5,6]]}', None),
        (TF, b'{"inputs":{"age":[41,42],"bmi":[2,5],"sex":[3,6]}}', None),
        (INVOKED, b'{"dataframe_split":{"columns":["age","bmi","sex"],"data":[[41,2,3],[42,5,6]]}}', None),
        (INVOKED, b"bmi,age,sex\n2,41,3\n5,42,6", "text/csv"),
        (INVOKED, npy(np.array([[41.0, 2, 3], [42, 5, 6]])), "application/x-npy"),
    ],
)
def test_redacted_columns_never_reach_the_log(
    surface: Surface, body: bytes, content_type: str | None, tree: Signature
) -> None:
    """A hidden column and a hidden output are masked in every form, the others are not."""
    inputs, outputs = logged(surface, body, tree, content_type, ("age", "scores"))
    assert "41" not in str(inputs)
    assert inputs["X"][1] == {"age": "[redacted]", "bmi": 5, "sex": 6}
    assert outputs == {"label": [1, 0], "scores": "[redacted]"}


def test_the_log_keeps_numbers_as_they_were_sent(tree: Signature) -> None:
    """0.1 stays 0.1, not what an FP32 makes of it."""
    for surface, body, content_type in (
        (TF, b'{"instances":[[0.1,0.2,0.3],[4,5,6]]}', None),
        (INVOKED, b"0.1,0.2,0.3\n4,5,6", "text/csv"),
    ):
        inputs, outputs = logged(surface, body, tree, content_type)
        assert inputs["X"][0] == {"age": 0.1, "bmi": 0.2, "sex": 0.3}
        assert outputs == {"label": [1, 0], "scores": [[0.25, 0.75], [1, 0]]}


def test_refused_requests_are_logged_if_readable(tree: Signature) -> None:
    """An error's record has the inputs if they can be read, else none; the answer is the error."""
    error = EncodedAnswer(b'{"error":"busy","code":"server_busy","detail":{},"request_id":"r"}')
    good, bad = RawRequest(orjson.dumps({"instances": RECORDS})), RawRequest(b'{"instances":[[1,2,"x"]]}')
    for surface in (TF, INVOKED):
        assert decode_for_log(surface, good, error, tree, ())[0] == {"X": RECORDS}
        assert decode_for_log(surface, bad, error, tree, ()) == (None, json.loads(error.body))


REFUSED: list[tuple[str, str, Any, str | None]] = [
    ("field_type", "body", [], None),
    ("field_type", "instances", {"instances": {"a": 1}}, None),
    ("field_type", "instances[1]", {"instances": [{"age": 1, "bmi": 2, "sex": 3}, 7]}, None),
    ("field_type", "inputs.bmi", {"inputs": {"age": [1], "bmi": 2, "sex": [3]}}, None),
    ("field_missing", "instances[1].sex", {"instances": [RECORDS[0], {"age": 1, "bmi": 2}]}, None),
    ("field_missing", "inputs.sex", {"inputs": {"age": [1], "bmi": [2]}}, None),
    ("field_missing", "instances[0].age", {"instances": [{}]}, None),
    ("field_unknown", "instances[0].extra", {"instances": [{**RECORDS[0], "extra": 1}]}, None),
    ("field_unknown", "inputs.extra", {"inputs": {"X": ROWS.tolist(), "extra": [1]}}, None),
    ("batch_empty", "instances", {"instances": []}, None),
    ("batch_empty", "inputs", {"inputs": []}, None),
    ("batch_empty", "inputs", {"inputs": {"age": [], "bmi": [], "sex": []}}, None),
    ("shape_mismatch", "instances", {"instances": [[1, 2]]}, None),
    ("shape_mismatch", "instances", {"instances": [1, 2, 3]}, None),
    ("shape_mismatch", "inputs", {"inputs": [[[1, 2, 3]]]}, None),
    ("element_count_mismatch", "instances", {"instances": [[1, 2, 3], [1, 2]]}, None),
    ("element_count_mismatch", "inputs.bmi", {"inputs": {"age": [1, 2], "bmi": [2], "sex": [3, 4]}}, None),
    ("value_invalid", "instances[1][0]", {"instances": [[1, 2, 3], [None, 2, 3]]}, None),
    ("value_invalid", "instances[0][1]", {"instances": [{**RECORDS[0], "bmi": True}]}, None),
    ("value_out_of_range", "inputs[0][2]", {"inputs": [[1, 2, 1e60]]}, None),
    ("parameter_invalid", "inputs", {"inputs": [[1, 2, 3]], "instances": [[1, 2, 3]]}, None),
    ("parameter_invalid", "subject", {"instances": [[1, 2, 3]], "subject": ""}, None),
]
INVOKED_REFUSED: list[tuple[str, str, Any, str | None]] = [
    ("field_type", "dataframe_split", {"dataframe_split": [1]}, None),
    ("field_type", "dataframe_split.data", {"dataframe_split": {"data": 1}}, None),
    ("field_type", "dataframe_split.data[1]", {"dataframe_split": {"data": [[1, 2, 3], 4]}}, None),
    ("field_type", "dataframe_split.columns", {"dataframe_split": {"columns": [None], "data": [[1]]}}, None),
    ("field_type", "dataframe_records", {"dataframe_records": {"age": 1}}, None),
    ("field_missing", "dataframe_split.data", {"dataframe_split": {"columns": ["age"]}}, None),
    ("field_missing", "dataframe_split.data.bmi", {"dataframe_split": {"columns": ["age"], "data": [[1]]}}, None),
    ("field_missing", "dataframe_records[0].age", {"dataframe_records": [{}]}, None),
    ("field_unknown", "dataframe_split.rows", {"dataframe_split": {"rows": [], "data": [[1, 2, 3]]}}, None),
    ("json_duplicate_key", "dataframe_split.columns", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, None),
    ("batch_empty", "dataframe_split.data", {"dataframe_split": {"data": []}}, None),
    ("batch_empty", "dataframe_records", {"dataframe_records": []}, None),
    ("element_count_mismatch", "dataframe_split.data[1]", {"dataframe_split": {"data": [[1, 2, 3], [4, 5]]}}, None),
    ("parameter_invalid", "params", {"params": {"k": 1}, "inputs": [[1, 2, 3]]}, None),
    ("field_unknown", "signature_name", {"signature_name": "a", "inputs": [[1, 2, 3]]}, None),
    ("csv_invalid", "body", b'1,"2', "text/csv"),
    ("csv_invalid", "body", b"1,\xff,2", "text/csv"),
    ("batch_empty", "body", b"\n\n", "text/csv"),
    ("batch_empty", "csv", b"age,bmi,sex\n", "text/csv"),
    ("field_missing", "csv.age", b"ages,bmi,sex\n1,2,3", "text/csv"),
    ("element_count_mismatch", "csv[1]", b"1,2,3\n4,5", "text/csv"),
    ("value_invalid", "csv[0][1]", b"age,bmi,sex\n1,1_000,3", "text/csv"),
    ("value_invalid", "csv[0][0]", b"age,bmi,sex\nnan,1,3", "text/csv"),
    ("value_invalid", "csv[0][2]", b"age,bmi,sex\n1,1,", "text/csv"),
    ("npy_invalid", "body", b"\x93NUMPY\x01\x00", "application/x-npy"),
    ("npy_invalid", "body", b"not numpy", "application/x-npy"),
    ("npy_invalid", "body", npy(np.array(["text"])), "application/x-npy"),
    ("binary_size_mismatch", "body", npy(ROWS)[:-1], "application/x-npy"),
    ("shape_mismatch", "body", npy(ROWS[:, :2]), "application/x-npy"),
    ("batch_empty", "body", npy(ROWS[:0]), "application/x-npy"),
    ("value_out_of_range", "body", npy(np.full((1, 3), 1e60)), "application/x-npy"),
    ("datatype_mismatch", "body", npy(np.ones((1, 3), bool)), "application/x-npy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("surface", "code", "field", "body", "content_type"),
    [(s, *case) for s in (TF, INVOKED) for case in REFUSED] + [(INVOKED, *case) for case in INVOKED_REFUSED],
)
def test_refusals_name_the_place(
    surface: Surface, code: str, field: str, body: Any, content_type: str | None, tree: Signature
) -> None:
    """What is wrong is refused with its code, its place, and a detail that is valid JSON."""
    with pytest.raises(ModelyardError) as caught:
        decode(surface, body, tree, content_type)
    orjson.dumps(dict(caught.value.detail))
    assert (caught.value.code, caught.value.detail["field"]) == (code, field), caught.value.message


@pytest.mark.parametrize(
    ("surface", "body", "content_type"),
    [
        (TF, b'{"instances":[[[1],[2],[3]]]}', None),
        (TF, b'{"instances":[[1,2,3],[4,[5],6]]}', None),
        (TF, b'{"instances":[[1,2,3],[4,5],[6,7,8,9]]}', None),
        (TF, b'{"instances":[1,2,3]}', None),
        (TF, b'{"instances":[[1,2,3]],"instances":[[1,2,3]]}', None),
        (INVOKED, b'{"dataframe_split":{"columns":["age","bmi","sex"],"data":[[1,2,3],[4,5],[6,7,8,9]]}}', None),
        (INVOKED, b'{"dataframe_split":{"columns":["age","bmi"],"data":[[1,2,3]]}}', None),
        (INVOKED, b"1,2,3],[4,5,6", "text/csv"),
        (INVOKED, b"1,2,[3]", "text/csv"),
        (INVOKED, b"1,2\n3,4,5,6", "text/csv"),
        (INVOKED, b"1,2\r3,4,5", "text/csv"),
    ],
)
def test_what_the_quick_paths_must_not_take(
    surface: Surface, body: bytes, content_type: str | None, tree: Signature
) -> None:
    """Numbers whose count is right and whose rows are not."""
    with pytest.raises(ModelyardError):
        decode(surface, body, tree, content_type)


def test_names_in_another_order_are_put_in_order(tree: Signature) -> None:
    """Also after the same names came in the model's order, and with brackets in a name."""
    for columns, row in ((["age", "bmi", "sex"], [1, 2, 3]), (["sex", "age", "bmi"], [3, 1, 2])):
        for _ in range(2):
            request = decode(INVOKED, {"dataframe_split": {"columns": columns, "data": [row]}}, tree)
            assert request.inputs["X"].tolist() == [[1, 2, 3]]
    odd = Signature((TensorSpec("X", "FP32", (-1, 2), columns=("[a", "b]")),), PLAIN.outputs)
    assert decode(INVOKED, {"dataframe_split": {"columns": ["[a", "b]"], "data": [[1, 2]]}}, odd).rows == 1


def test_a_pickle_is_never_loaded() -> None:
    """An array of objects is refused before a byte of it is unpickled."""
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ModelyardError, match="numbers or booleans"):
        decode(INVOKED, file.getvalue(), PLAIN, "application/x-npy")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=latin-1", "application/json; format=pandas-split", "text/csv; header=no"],
)
def test_other_content_types_are_refused(content_type: str, tree: Signature) -> None:
    """What is not spoken is told so, with what is."""
    with pytest.raises(MediaTypeError) as caught:
        decode(INVOKED, {"instances": ROWS.tolist()}, tree, content_type)
    assert "application/json" in caught.value.detail["expected"]


def test_other_signatures_are_refused(tree: Signature) -> None:
    """A model has one signature; asking for another is an error, not another model."""
    for name in ("other", None, 3):
        with pytest.raises(ModelyardError) as caught:
            decode(TF, {"signature_name": name, "instances": ROWS.tolist()}, tree)
        assert (caught.value.code, caught.value.detail["field"]) == ("parameter_invalid", "signature_name")


def test_bad_base64_is_refused() -> None:
    """Its place is named."""
    signature = Signature((TensorSpec("t", "BYTES", (-1,)),), (TensorSpec("o", "BYTES", (-1,)),))
    for value in ({"b64": "*"}, {"b64": 3}):
        with pytest.raises(ModelyardError) as caught:
            decode(TF, {"instances": ["a", value]}, signature)
        assert (caught.value.code, caught.value.detail["field"]) == ("value_invalid", "instances[1]")


def test_subjects(tree: Signature) -> None:
    """Both surfaces take the subject beside the rows."""
    for surface in (TF, INVOKED):
        assert decode(surface, {"instances": ROWS.tolist(), "subject": "p-17"}, tree).subject == "p-17"
