"""Requests that are read and answered together: the same tensors, bytes and refusals as one by one (P3, API-6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.codec.log import decode_for_log
from modelyard.codec.oip import OipCodec
from modelyard.core.errors import InvalidRequestError
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
from modelyard.storage.prediction_row import json_text

BOUNDS = CodecBounds()


def signature(datatype: str = "FP32", width: int = 3) -> Signature:
    return Signature(
        (TensorSpec("X", datatype, (-1, width)),),
        (TensorSpec("label", "INT64", (-1,)), TensorSpec("p%", "FP32", (-1, 2)), TensorSpec("one", "FP64", (-1, 1))),
    )


def body(data: str, shape: str = "[1,3]", datatype: str = "FP32", extra: str = "") -> bytes:
    return f'{{"inputs":[{{"name":"X","shape":{shape},"datatype":"{datatype}","data":{data}}}]{extra}}}'.encode()


def taught(spec: Signature, first: bytes) -> OipCodec:
    """A codec that has read one usual request of this signature."""
    codec = OipCodec()
    codec.decode(RawRequest(first), spec, BOUNDS)
    return codec


def alone(codec: OipCodec, raw: bytes, spec: Signature) -> Any:
    try:
        return codec.decode(RawRequest(raw), spec, BOUNDS).inputs["X"].tolist()
    except InvalidRequestError as error:
        return error.code


def together(codec: OipCodec, bodies: list[bytes], spec: Signature) -> list[Any]:
    """What the spine makes of them: where the turn gives None, the single way decides."""
    read = codec.decode_turn(bodies, spec, BOUNDS)
    return [
        alone(codec, raw, spec) if one is None else one.inputs["X"].tolist()
        for raw, one in zip(bodies, read, strict=True)
    ]


@pytest.mark.parametrize("form", ["[1,2,3]", "[[1,2,3]]", " [1, 2.5,3]"])
def test_usual_requests_are_read_together(form: str) -> None:
    """Once a client's form is known, all of a turn are one parse; the tensors are their own rows."""
    spec = signature()
    codec = taught(spec, body(form))
    bodies = [body(form.replace("1", str(n))) for n in range(4, 9)]
    read = codec.decode_turn(bodies, spec, BOUNDS)
    assert all(one is not None and one.rows == 1 for one in read)
    assert together(codec, bodies, spec) == [alone(OipCodec(), raw, spec) for raw in bodies]


HOSTILE = [
    "[1,2]", "[1,2,3,4]", "[1,2,3", "1,2,3]", "[1,2,]", "[,1,2]", "[1,,2]", "[]", "[1,2,[3]]", "[[1],2,3]", '[1,2,"3"]',
    '[1,"],["]', '[1,2,"]', '[",2,3]', "[1,2,null]", "[1,2,true]", "[1,2,NaN]", "[1,2,Infinity]", "[1,2,1e400]",
    "[1,2,1e39]", "[1,2,{}]", "[1,2,-]", "[1,2,3]]", "[[1,2,3]", "[1,2,3],[4,5,6]", "[01,2,3]", "[1,2,3 ]", "[1 2,3,4]",
    "[9007199254740993,2,3]", "[1,2,99999999999999999999]", '[1,2,"a\\"]', "[1,\x002,3]", "[\xff,2,3]",
]  # fmt: skip


@pytest.mark.parametrize("row", HOSTILE)
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "UINT8"])
def test_a_hostile_row_changes_nobody(row: str, datatype: str) -> None:
    """At each place among good rows: it gets what it would get alone, and so do its neighbours (P3)."""
    spec = signature(datatype)
    codec = taught(spec, body("[1,2,3]", datatype=datatype))
    good = [body(f"[{n},2,3]", datatype=datatype) for n in range(3)]
    bad = body("HOLE", datatype=datatype).replace(b"HOLE", row.encode("latin-1"))
    for place in range(4):
        bodies = [*good[:place], bad, *good[place:]]
        assert together(codec, bodies, spec) == [alone(OipCodec(), raw, spec) for raw in bodies]


def test_two_halves_do_not_make_a_whole() -> None:
    """Rows that are wrong alone and right as neighbours stay wrong."""
    spec = signature()
    codec = taught(spec, body("[1,2,3]"))
    for one, other in (("[1,2]", "[3,4,5,6]"), ('[1,2,"]', '[",5,6]'), ("[1,2,[3]", "[4],5,6]")):
        bodies = [body(one), body(other)]
        assert together(codec, bodies, spec) == [alone(OipCodec(), raw, spec) for raw in bodies]
        assert all(isinstance(told, str) for told in together(codec, bodies, spec))


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
rows = st.lists(numbers, min_size=2, max_size=4) | st.text(max_size=6)


@given(st.lists(rows, max_size=6))
def test_together_is_alone(several: list[Any]) -> None:
    """Any rows, right or wrong: read together is read alone."""
    spec = signature()
    codec = taught(spec, body("[1,2,3]"))
    bodies = [body("HOLE").replace(b"HOLE", orjson.dumps(row)) for row in several]
    assert together(codec, bodies, spec) == [alone(OipCodec(), raw, spec) for raw in bodies]


def test_another_form_is_learned_when_it_is_usual() -> None:
    """A client with another order of keys is read the single way, and together once it asks often."""
    spec = signature()
    codec = taught(spec, body("[1,2,3]"))
    other = b'{"inputs":[{"data":[1,2,3],"datatype":"FP32","shape":[1,3],"name":"X"}]}'
    mixed = [other, body("[4,5,6]"), other]
    assert [one is not None for one in codec.decode_turn(mixed, spec, BOUNDS)] == [False, True, False]
    assert together(codec, mixed, spec) == [[[1, 2, 3]], [[4, 5, 6]], [[1, 2, 3]]]
    trailing = body("[7,8,9]", extra=" ")
    for _ in range(70):
        alone(codec, trailing, spec)
    assert codec.decode_turn([trailing], spec, BOUNDS)[0] is not None


@pytest.mark.parametrize("extra", [',"id":"a"', ',"outputs":[{"name":"label"}]', ',"parameters":{"subject":"s"}'])
def test_what_is_not_usual_is_never_learned(extra: str) -> None:
    """An id, chosen outputs or a subject belong to one request: its form is not remembered."""
    spec = signature()
    codec = taught(spec, body("[1,2,3]", extra=extra))
    assert codec.decode_turn([body("[4,5,6]", extra=extra)], spec, BOUNDS) == [None]


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(width=32), st.floats(width=32), st.floats()), min_size=1
    )
)
def test_answers_made_together_are_those_made_alone(values: list[tuple[int, float, float, float]]) -> None:
    """Byte by byte, NaN and the infinities included."""
    spec, codec = signature(), OipCodec()
    outputs = {
        "label": np.array([v[0] for v in values], np.int64),
        "p%": np.array([v[1:3] for v in values], np.float32),
        "one": np.array([v[3:] for v in values], np.float64),
    }
    requests = [DecodedRequest({}, 1)] * len(values)
    ids = [b"%026x" % n for n in range(len(values))]
    context = AnswerContext("tree", "1", "", spec)
    made = codec.encode_turn(requests, outputs, ids, context)
    single = [
        codec.encode(
            requests[n],
            {name: array[n : n + 1] for name, array in outputs.items()},
            AnswerContext("tree", "1", ids[n].decode(), spec),
        ).body
        for n in range(len(values))
    ]
    assert made == single


@pytest.mark.parametrize(
    "request_", [DecodedRequest({}, 2), DecodedRequest({}, 1, "id"), DecodedRequest({}, 1, binary=True)]
)
def test_unusual_wishes_are_answered_alone(request_: DecodedRequest) -> None:
    """More rows, an id of the caller's, binary: the single way."""
    context = AnswerContext("tree", "1", "", signature())
    assert OipCodec().encode_turn([request_], {}, [b"1"], context) is None


def test_outputs_that_are_no_table_are_answered_alone() -> None:
    """Text, and tensors of more than two dimensions."""
    for spec, array in (
        (TensorSpec("y", "BYTES", (-1,)), np.array([b"a"], object)),
        (TensorSpec("y", "FP32", (-1, 2, 2)), np.zeros((1, 2, 2), np.float32)),
    ):
        context = AnswerContext("m", "1", "", Signature((TensorSpec("X", "FP32", (-1, 3)),), (spec,)))
        assert OipCodec().encode_turn([DecodedRequest({}, 1)], {"y": array}, [b"1"], context) is None


@pytest.mark.parametrize("columns", [(), ("a", 'b"', "c")])
@given(row=st.lists(numbers, min_size=3, max_size=3))
def test_the_log_gets_the_numbers_as_they_stand(columns: tuple[str, ...], row: list[float]) -> None:
    """Cut out of the body or parsed: the same inputs and outputs in the prediction log."""
    spec = Signature((TensorSpec("X", "FP64", (-1, 3), columns),), (TensorSpec("y", "FP64", (-1,)),))
    raw = RawRequest(body(orjson.dumps(row).decode(), datatype="FP64"))
    codec = OipCodec()
    context = AnswerContext("m", "1", "id", spec)
    answer = codec.encode(codec.decode(raw, spec, BOUNDS), {"y": np.array([0.5])}, context)
    cut = [decode_for_log(Surface.OIP, raw, answer, spec, (), spliced=True) for _ in range(2)][-1]
    assert orjson.loads(json_text(cut[0])) == orjson.loads(
        json_text(decode_for_log(Surface.OIP, raw, answer, spec, ())[0])
    )
    assert isinstance(cut[0], orjson.Fragment)
    assert json_text(cut[1]) == '{"y":[0.5]}'


@given(row=st.lists(st.floats(width=32), min_size=0, max_size=4), label=st.integers(-(2**63), 2**63 - 1))
def test_the_log_gets_the_answer_as_it_stands(row: list[float], label: int) -> None:
    """Cut out of the answer or parsed: the same outputs, NaN and the infinities included."""
    spec = Signature(
        (TensorSpec("X", "FP64", (-1, 3)),), (TensorSpec("l[%", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, -1)))
    )
    raw = RawRequest(body("[1,2,3]", datatype="FP64"))
    outputs = {"l[%": np.array([label]), "p": np.array([row], np.float32)}
    answer = OipCodec().encode(DecodedRequest({}, 1), outputs, AnswerContext("m", "1", "id", spec))
    cut = [decode_for_log(Surface.OIP, raw, answer, spec, (), spliced=True)[1] for _ in range(2)][-1]
    assert isinstance(cut, orjson.Fragment)
    assert orjson.loads(json_text(cut)) == decode_for_log(Surface.OIP, raw, answer, spec, ())[1]


def test_a_refused_request_is_never_cut() -> None:
    """Its body may be anything: only what was answered is taken as it stands."""
    spec = signature()
    good = RawRequest(body("[1,2,3]"))
    context = AnswerContext("m", "1", "id", spec)
    codec = OipCodec()
    outputs = {"label": np.array([1]), "p%": np.ones((1, 2)), "one": np.ones((1, 1))}
    decode_for_log(Surface.OIP, good, codec.encode(DecodedRequest({}, 1), outputs, context), spec, (), spliced=True)
    refusal = EncodedAnswer(b'{"error":"no","code":"value_invalid","detail":{}}')
    told = decode_for_log(Surface.OIP, RawRequest(body("[1,x,3]")), refusal, spec, (), spliced=True)
    assert told == (None, {"error": "no", "code": "value_invalid", "detail": {}})


@pytest.mark.parametrize("columns", [(), ("a", "b", "c")])
@pytest.mark.parametrize("data", ["[1,2,3] ", "[1,2,3]\n", "[[1,2,3] ]", "[ 1 ,2, 3 ]"])
def test_white_space_around_a_row_leaves_the_log_whole(columns: tuple[str, ...], data: str) -> None:
    """A caller that sets its brackets apart has a record like any other: cut amiss, its text would be no JSON, and
    whoever listed the log would meet it."""
    spec = Signature((TensorSpec("X", "FP32", (-1, 3), columns),), (TensorSpec("y", "FP32", (-1,)),))
    codec = taught(spec, body("[[4,5,6]]" if data.startswith("[[") else "[4,5,6]"))
    raw = RawRequest(body(data))
    outputs = {"y": np.ones(1, np.float32)}
    answer = codec.encode(codec.decode(raw, spec, BOUNDS), outputs, AnswerContext("m", "1", "p", spec))
    stored = orjson.dumps(decode_for_log(Surface.OIP, raw, answer, spec, (), spliced=True))
    assert orjson.loads(stored) == [*decode_for_log(Surface.OIP, raw, answer, spec, ())]
