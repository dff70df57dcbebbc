"""The scoring forms over random tensors: every form is the tensor that the Open Inference Protocol carries."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.codec import CODECS
from modelyard.codec.log import decode_for_log
from modelyard.core.errors import ModelyardError
from modelyard.core.types import (
    DATATYPES,
    AnswerContext,
    CodecBounds,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

BOUNDS = CodecBounds()
SCORING = (Surface.TFSERVING, Surface.INVOCATIONS)
NAMES = ("a", "b c", "größe", '"q"', "x,y")
Case = tuple[Signature, Any]


def values(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return st.text(max_size=5).map(str.encode)
    return hnp.from_dtype(DATATYPES[datatype], allow_nan=False, allow_infinity=False)


@st.composite
def tensors(draw: st.DrawFn) -> Case:
    """A tensor of at least one row, any datatype, one to four dimensions, and the signature of a model that is it."""
    datatype = draw(st.sampled_from(list(DATATYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    array = draw(hnp.arrays(DATATYPES[datatype], shape, elements=values(datatype)))
    spec = TensorSpec("X", datatype, (-1, *shape[1:]))
    return Signature((spec,), (spec,)), array


@st.composite
def tables(draw: st.DrawFn) -> Case:
    """Rows with named columns."""
    datatype = draw(st.sampled_from(list(DATATYPES)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    shape = (draw(st.integers(1, 4)), len(names))
    array = draw(hnp.arrays(DATATYPES[datatype], shape, elements=values(datatype)))
    spec = TensorSpec("X", datatype, (-1, len(names)), columns=tuple(names))
    return Signature((spec,), (spec,)), array


def plain(array: Any) -> Any:
    """As JSON values."""
    if array.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(array).tolist()
    return array.tolist()


def decode(surface: Surface, body: bytes, signature: Signature, content_type: bytes | None = None) -> Any:
    return CODECS[surface].decode(RawRequest(body, content_type), signature, BOUNDS).inputs["X"]


def same(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other, strict=True)


@settings(max_examples=150, deadline=None)
@given(tensors())
def test_rows_and_columns_carry_every_tensor(case: Case) -> None:
    """Every datatype and shape, with and without the input's name."""
    signature, array = case
    rows = plain(array)
    for body in (
        {"instances": rows},
        {"inputs": rows},
        {"inputs": {"X": rows}},
        {"instances": [{"X": row} for row in rows]},
    ):
        for surface in SCORING:
            same(decode(surface, json.dumps(body).encode(), signature), array)


@settings(max_examples=150, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_tables_carry_every_row(case: Case, random: Any) -> None:
    """Data frames and CSV with their columns in any order, NumPy's file, and what the log says of each."""
    signature, array = case
    names, rows = signature.inputs[0].columns, plain(array)
    order = random.sample(range(len(names)), len(names))
    shuffled = [[row[place] for place in order] for row in rows]
    columns = [names[place] for place in order]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([columns, *shuffled])
    file = io.BytesIO()
    np.save(file, array if array.dtype != object else np.zeros(1))
    forms: list[tuple[bytes, bytes | None]] = [
        (json.dumps({"dataframe_split": {"columns": columns, "data": shuffled}}).encode(), None),
        (json.dumps({"dataframe_records": [dict(zip(columns, row, strict=True)) for row in shuffled]}).encode(), None),
    ]
    if not any("\r" in value or "\n" in value or "\0" in value for row in rows for value in row if type(value) is str):
        forms.append((text.getvalue().encode(), b"text/csv"))
    if array.dtype != object:
        forms.append((file.getvalue(), b"application/x-npy"))
    for body, content_type in forms:
        same(decode(Surface.INVOCATIONS, body, signature, content_type), array)


@settings(max_examples=150, deadline=None)
@given(tensors())
def test_an_answer_can_be_sent_back_and_is_logged(case: Case) -> None:
    """Predictions as instances, outputs as inputs: the same tensor again; the log has the same values."""
    signature, array = case
    context = AnswerContext("m", "1", "id", signature)
    for key, said in (("instances", "predictions"), ("inputs", "outputs")):
        body = json.dumps({key: plain(array)}).encode()
        request = CODECS[Surface.TFSERVING].decode(RawRequest(body), signature, BOUNDS)
        answer = CODECS[Surface.TFSERVING].encode(request, {"X": array}, context)
        again = orjson.loads(answer.body)[said]
        same(decode(Surface.TFSERVING, orjson.dumps({key: again}), signature), array)
        inputs, outputs = decode_for_log(Surface.TFSERVING, RawRequest(body), answer, signature, ())
        assert inputs == {"X": plain(array)}
        assert outputs == {"X": again}


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(tensors(), tables()),
    st.sampled_from(SCORING),
    st.sampled_from([None, b"text/csv", b"application/x-npy", b"text/csv; header=present", b"text/html"]),
    st.data(),
)
def test_damage_is_refused_in_our_form(
    case: Case, surface: Surface, content_type: bytes | None, data: st.DataObject
) -> None:
    """Whatever is cut out of a good body or put into it: a tensor or a ModelyardError whose detail is JSON."""
    signature, array = case
    body = data.draw(
        st.sampled_from(
            [
                json.dumps({"instances": plain(array)}).encode(),
                json.dumps({"dataframe_split": {"columns": ["a"], "data": plain(array)}}).encode(),
                b"a,b\n1,2\n",
                npy(array),
            ]
        )
    )
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    damaged = (
        body[:start]
        + data.draw(st.sampled_from([b"", b"[", b"{}", b"null", b'"', b"\xff", b",", b"1e999"]))
        + body[end:]
    )
    try:
        decode(surface, damaged, signature, content_type)
    except ModelyardError as error:
        orjson.dumps(dict(error.detail))
    with contextlib.suppress(ModelyardError):
        error_answer = EncodedAnswer(b'{"error":"wrong","code":"json_invalid","detail":{},"request_id":"r"}')
        decode_for_log(surface, RawRequest(damaged, content_type), error_answer, signature, ("X",))


LOOSE = st.recursive(
    st.one_of(st.integers(-300, 300), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["1", None])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
MATRIX = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(LOOSE, min_size=width, max_size=width), max_size=3))
CAREFUL = CodecBounds(max_json_depth=7)
"""So few levels that no quick path is taken."""
CELLS = ["1", "-2.5", "1e3", ".5", "+1", "a", "X", "", " 7", "1]", "[2", '"3"', "nan"]
LINE = st.lists(st.sampled_from(CELLS), max_size=3)


def outcome(surface: Surface, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> Any:
    try:
        request = CODECS[surface].decode(raw, signature, bounds)
    except ModelyardError as error:
        return error.code, error.detail.get("field")
    array = request.inputs["X"]
    return str(array.dtype), array.tolist(), request.rows, request.columnar, request.subject


@pytest.mark.filterwarnings("ignore:overflow encountered in dot:RuntimeWarning:modelyard.codec.oip")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["FP32", "FP64", "INT64", "UINT8", "INT32"]),
    st.sampled_from([(), ("a", "X"), ("a",), ("X",)]),
    st.sampled_from([["a", "X"], ["X", "a"], ["a"], ["X"], [1, 2], ["a", "a"], []]),
    st.one_of(LOOSE, MATRIX),
    st.lists(LINE.map(",".join), max_size=3).map("\n".join),
)
def test_the_quick_paths_have_no_opinion_of_their_own(
    datatype: str, columns: tuple[str, ...], names: list[Any], data: Any, text: str
) -> None:
    """For any rows, names and lines, right or wrong, the quick and the careful reading agree."""
    spec = TensorSpec("X", datatype, (-1, len(columns) or -1), columns=columns)
    signature = Signature((spec,), (spec,))
    bodies: list[tuple[Any, bytes | None]] = [
        ({"instances": data}, None),
        ({"inputs": data}, b"application/json"),
        ({"dataframe_split": {"columns": names, "data": data}}, None),
        ({"dataframe_split": {"data": data, "columns": names, "index": [0]}}, None),
    ]
    requests = [RawRequest(json.dumps(body).encode(), kind) for body, kind in bodies] + [
        RawRequest(text.encode(), b"text/csv"),
        RawRequest(text.encode().replace(b"\n", b"\r\n") + b"\r\n", b"text/csv"),
    ]
    for raw in requests:
        for surface in SCORING:
            careful = outcome(surface, raw, signature, CAREFUL)
            if careful[0] != "json_too_deep":
                assert outcome(surface, raw, signature, BOUNDS) == careful


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
