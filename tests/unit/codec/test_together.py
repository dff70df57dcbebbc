"""Requests of the scoring and predictions routes that are read and answered together: the same tensors, bytes and
refusals as one by one (P3, API-6)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.codec import signature_plan
from modelyard.codec.rows import PredictionsCodec
from modelyard.codec.scoring.invocations import InvocationsCodec
from modelyard.codec.scoring.tfserving import TfServingCodec
from modelyard.codec.signature_plan import plan_of
from modelyard.codec.together.forms import LEARN_AFTER, MOST_FORMS
from modelyard.core.errors import ModelyardError
from modelyard.core.types import AnswerContext, CodecBounds, DecodedRequest, RawRequest, Signature, TensorSpec

BOUNDS = CodecBounds()
NAMES = ("age", "bmi", 'se"x')
CSV = b"text/csv"
TF, INVOKED, OURS = TfServingCodec(), InvocationsCodec(), PredictionsCodec()


def signature(datatype: str = "FP32", columns: tuple[str, ...] = NAMES) -> Signature:
    labels = ("ill", "well")
    return Signature(
        (TensorSpec("X", datatype, (-1, 3), columns),),
        (
            TensorSpec("label", "INT64", (-1,), (), labels),
            TensorSpec("p%", "FP32", (-1, 2), (), labels),
            TensorSpec("one", "FP64", (-1, 1)),
        ),
    )


@pytest.fixture(autouse=True)
def _no_plans() -> None:
    """There are 1,024 plans of signatures at most, then all are forgotten; here each request may have its own."""
    signature_plan._plans.clear()


def row(*values: str) -> str:
    return "[" + ",".join(values) + "]"


def record(*values: str, order: tuple[int, ...] = (0, 1, 2)) -> str:
    return "{" + ",".join(f"{json.dumps(NAMES[at])}:{values[at]}" for at in order) + "}"


Form = tuple[Any, bytes | None, str]
FORMS: dict[str, Form] = {
    "tf rows": (TF, None, '{"instances":[ROW]}'),
    "tf rows, its signature named": (TF, None, '{"signature_name": "serving_default", "instances": [ROW]}'),
    "tf columns": (TF, None, '{"inputs":[ROW]}'),
    "tf by input": (TF, None, '{"instances":[{"X":ROW}]}'),
    "tf records": (TF, None, '{"instances":[RECORD]}'),
    "tf columns by name": (TF, None, '{"inputs":{"bmi":[B],"se\\"x":[[C]],"age":[A]}}'),
    "split": (INVOKED, b"application/json", '{"dataframe_split":{"columns":["age","bmi","se\\"x"],"data":[ROW]}}'),
    "split with an index": (
        INVOKED,
        None,
        '{"dataframe_split":{"columns":["n","bmi","age","se\\"x"],"index":[7],"data":[[5,B,A,C]]}}',
    ),
    "split, data first": (INVOKED, None, '{"dataframe_split":{"data":[ROW],"index":[0]}}'),
    "records": (INVOKED, None, '{"dataframe_records":[RECORD]}'),
    "records in another order": (INVOKED, None, '{"dataframe_records":[REVERSED],"params":{}}'),
    "instances": (INVOKED, None, '{"instances":[ROW]}'),
    "inputs": (INVOKED, None, ' { "inputs" : [ ROW ] } '),
    "csv": (INVOKED, CSV, "A,B,C\n"),
    "csv with a header": (INVOKED, CSV, 'age,bmi,"se""x"\r\nA,B,C'),
    "items": (OURS, None, '{"items":[RECORD]}'),
    "items by input": (OURS, None, '{"items":[{"X":ROW}]}'),
}  # fmt: skip


def body(form: Form, a: str, b: str, c: str) -> bytes:
    """The form with this row in it."""
    text = form[2].replace("ROW", row("A", "B", "C")).replace("RECORD", record("A", "B", "C"))
    text = text.replace("REVERSED", record("A", "B", "C", order=(2, 0, 1)))
    # json.dumps wrote no capital letters but the holes
    return text.replace("A", a).replace("B", b).replace("C", c).encode("latin-1")


def alone(form: Form, raw: bytes, spec: Signature) -> Any:
    try:
        return seen(form[0].decode(RawRequest(raw, form[1]), spec, BOUNDS))
    except ModelyardError as error:
        return error.code, error.message, str(error.detail)


def seen(request: DecodedRequest) -> Any:
    tensors = [(name, array.dtype, array.shape, array.tolist()) for name, array in request.inputs.items()]
    return tensors, request.rows, request.columnar, request.items, request.subject


def fresh(form: Form, raw: bytes, datatype: str, columns: tuple[str, ...] = NAMES) -> Any:
    """What somebody gets who is alone in the world: a signature of its own has learned nothing."""
    return alone(form, raw, signature(datatype, columns))


def turn(form: Form, bodies: list[bytes], spec: Signature) -> list[DecodedRequest | None]:
    found: list[DecodedRequest | None] = form[0].decode_turn(bodies, spec, BOUNDS, form[1])
    return found


def together(form: Form, bodies: list[bytes], spec: Signature) -> list[Any]:
    """What the spine makes of them: where the turn gives None, the single way decides."""
    return [
        alone(form, raw, spec) if one is None else seen(one)
        for raw, one in zip(bodies, turn(form, bodies, spec), strict=True)
    ]


def taught(form: Form, datatype: str = "FP32", columns: tuple[str, ...] = NAMES) -> Signature:
    """A signature whose codec has read one request of the form."""
    spec = signature(datatype, columns)
    alone(form, body(form, "1", "1", "1"), spec)
    return spec


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "UINT8"])
def test_usual_requests_are_read_together(form: Form, datatype: str) -> None:
    """Once one was read, all of a turn are one parse, each with its own row, in the model's order."""
    spec = taught(form, datatype)
    bodies = [body(form, str(n), "22", str(n * 3)) for n in range(4, 9)]
    assert None not in turn(form, bodies, spec)
    assert together(form, bodies, spec) == [fresh(form, raw, datatype) for raw in bodies]
    first = turn(form, bodies, spec)[0]
    assert first is not None
    assert first.inputs["X"].tolist() == [[4, 22, 12]]


HOSTILE = [
    "", "-", "1-2", "--1", "1.", ".5", "+1", "01", "1e", "1e400", "1e39", "1e10", "0x1", "NaN", "Infinity", "null",
    "true", '"3"', "[3]", "{}", "3]", "[3", "3,4", ",3", "3,", "3 4", "3}", " 3", "3 ", "9007199254740993", "300", "-1",
    "99999999999999999999", "1.5", "\xff", "\x00", "3\n", "3\n4,5,6", '3"', '3,"x":4', "-0", "3],[4,5,6",
    "1e-400", "3e0",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("datatype", ["FP32", "INT32", "UINT8"])
def test_a_hostile_number_changes_nobody(form: Form, datatype: str) -> None:
    """One among good ones, at each place of a row: it gets what it would get alone, and so do its neighbours (P3)."""
    spec = taught(form, datatype)
    good = [body(form, str(n), "2", "3") for n in range(3)]
    told = [fresh(form, raw, datatype) for raw in good]
    for at in range(3):
        for number in HOSTILE:
            values = ["1", "2", "3"]
            values[at] = number
            bad = body(form, *values)
            found = together(form, [*good, bad, *good], spec)
            assert found == [*told, fresh(form, bad, datatype), *told], (number, at)


def test_two_halves_do_not_make_a_whole() -> None:
    """Rows that are wrong alone and right as neighbours stay wrong."""
    form = FORMS["tf rows"]
    spec = taught(form)
    for one, other in (("1,2", "3,4,5,6"), ("1,2,", "4,5"), ("1,2,3,", ",4,5,6")):
        bodies = [b'{"instances":[[%b]]}' % one.encode(), b'{"instances":[[%b]]}' % other.encode()]
        assert together(form, bodies, spec) == [fresh(form, raw, "FP32") for raw in bodies]


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr) | st.integers(-(2**53), 2**53).map(str)
values = numbers | st.text(alphabet='0123456789+-.eE, ]}\n"', max_size=5)


@pytest.mark.filterwarnings("ignore:overflow encountered in dot")  # as codec.oip says it: it is an answer
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(rows=st.lists(st.tuples(values, values, values), max_size=4))
def test_together_is_alone(form: Form, rows: list[tuple[str, str, str]]) -> None:
    """Any rows, right or wrong: read together is read alone."""
    spec = taught(form)
    bodies = [body(form, *one) for one in rows]
    assert together(form, bodies, spec) == [fresh(form, raw, "FP32") for raw in bodies]


def test_forms_live_side_by_side() -> None:
    """Clients of different forms in one turn are each read together with their like."""
    names = ("split", "records", "instances", "inputs")
    spec = signature()
    for name in names:
        InvocationsCodec().decode(RawRequest(body(FORMS[name], "1", "2", "3"), None), spec, BOUNDS)
    bodies = [body(FORMS[name], str(n), "2", "3") for n in range(3) for name in names]
    found = INVOKED.decode_turn(bodies, spec, BOUNDS, None)
    assert [one.inputs["X"].tolist() for one in found] == [[[n, 2, 3]] for n in range(3) for _ in names]
    assert INVOKED.decode_turn(bodies, spec, BOUNDS, b"application/json; charset=utf-8") == [None] * len(bodies)


def test_a_new_form_takes_the_place_of_an_old_one() -> None:
    """Forms are few: who makes up forms makes the codec learn now and then, and a usual one comes back."""
    spec = signature()
    for n in range(3 * LEARN_AFTER):
        OURS.decode(RawRequest(b'{"items":[{"X":[1,2,3]}]}' + b" " * n), spec, BOUNDS)
    forms = plan_of(spec).forms["predictions"]
    assert len(forms.known) == MOST_FORMS
    assert forms.tries <= MOST_FORMS + 3
    usual = b'{"items":[{"X":[4,5,6]}]}' + b"\n"
    assert OURS.decode_turn([usual], spec, BOUNDS) == [None]
    for _ in range(LEARN_AFTER):
        OURS.decode(RawRequest(usual), spec, BOUNDS)
    assert OURS.decode_turn([usual], spec, BOUNDS)[0].inputs["X"].tolist() == [[4, 5, 6]]


UNUSUAL: list[tuple[Any, bytes | None, bytes]] = [
    (TF, None, b'{"instances":[[1,2,3]],"subject":"s"}'),
    (TF, None, b'{"instances":[[1,2,3],[4,5,6]]}'),
    (INVOKED, None, b'{"dataframe_split":{"data":[[1,2,3],[4,5,6]]}}'),
    (INVOKED, CSV, b"1,2,3\n4,5,6"),
    (OURS, None, b'{"items":[{"X":[1,2,3]},{"X":[4,5,6]}]}'),
    (OURS, None, b'{"items":[{"X":[1,2,3]},{"X":[4,5]}]}'),
    (OURS, None, b'{"items":[{"X":[1,2,3]}],"subject":"s"}'),
]


@pytest.mark.parametrize(("codec", "kind", "raw"), UNUSUAL)
def test_what_is_not_usual_is_never_learned(codec: Any, kind: bytes | None, raw: bytes) -> None:
    """A subject belongs to one request; more rows are no turn's business; a refused item is read alone."""
    spec = signature()
    for _ in range(2):
        codec.decode(RawRequest(raw, kind), spec, BOUNDS)
    assert codec.decode_turn([raw], spec, BOUNDS, kind) == [None]


@pytest.mark.parametrize("columns", [("0", "1", "2"), ("1", "2", "3")])
def test_numbers_as_names_stay_names(columns: tuple[str, ...]) -> None:
    """Columns called by numbers, as pandas does: a name is never taken for a value, nor a header for a row."""
    split: Form = (INVOKED, None, '{"dataframe_split":{"columns":[%s],"data":[[A,B,C]]}}' % ",".join(columns))
    csv: Form = (INVOKED, CSV, "A,B,C\n7,8,9\n")
    short: Form = (INVOKED, CSV, "A,B,C\n")
    for form in (split, csv, short):
        spec = taught(form, columns=columns)
        bodies = [body(form, "4", "5", "6"), body(form, *columns)]
        if form is split:
            assert None not in turn(form, bodies, spec)
            bodies += [bodies[0].replace(b'"columns":[%b' % columns[0].encode(), b'"columns":[2')]
        assert together(form, bodies, spec) == [fresh(form, raw, "FP32", columns) for raw in bodies]
    header = body(csv, *columns)
    assert fresh(csv, header, "FP32", columns)[0][0][3] == [[7, 8, 9]]


def test_other_bounds_are_other_forms() -> None:
    """A form is only as good as the bounds that it was read within."""
    form = FORMS["tf rows"]
    spec = taught(form)
    assert TF.decode_turn([body(form, "1", "2", "3")], spec, CodecBounds(max_json_values=2)) == [None]


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 2, 2), (1, 3)])
def test_other_shapes(shape: tuple[int, ...]) -> None:
    """Inputs of one, two and three dimensions, and a model that takes one row alone."""
    spec = Signature((TensorSpec("X", "FP32", shape),), (TensorSpec("y", "FP32", (-1, 1)),))
    inner = {(-1,): "A", (-1, 1): "[A]", (-1, 2, 2): "[[A,B],[C,4]]", (1, 3): "[A,B,C]"}[shape]
    for form in ((TF, None, f'{{"instances":[{inner}]}}'), (OURS, None, f'{{"items":[{{"X":{inner}}}]}}')):
        expected = [alone(form, body(form, a, "2", "3"), spec) for a in "567"]
        found = form[0].decode_turn([body(form, a, "2", "3") for a in "567"], spec, BOUNDS, None)
        if shape[0] == -1:
            assert [seen(one) for one in found] == expected
        else:
            assert found == [None] * 3


CASES = st.tuples(st.integers(-3, 2**63 - 1), st.floats(width=32), st.floats(width=32), st.floats())


@pytest.mark.parametrize("named", [True, False])
@given(rows=st.lists(st.tuples(CASES, st.booleans()), min_size=1, max_size=8))
def test_answers_made_together_are_those_made_alone(named: bool, rows: list[tuple[Any, bool]]) -> None:
    """Byte by byte on every surface: NaN and the infinities, labels that there are not, rows beside columns."""
    spec = signature() if named else Signature(signature().inputs, signature().outputs[1:2])
    outputs = {
        "label": np.array([row[0] if n % 2 else n % 3 for n, (row, _) in enumerate(rows)], np.int64),
        "p%": np.array([row[1:3] for row, _ in rows], np.float32),
        "one": np.array([row[3:] for row, _ in rows], np.float64),
    }
    outputs = {one.name: outputs[one.name] for one in spec.outputs}
    ids = [b"%026x" % n for n in range(len(rows))]
    for codec, items in ((TF, ()), (INVOKED, ()), (OURS, (0,))):
        requests = [DecodedRequest({}, 1, items=items, columnar=codec is TF and columnar) for _, columnar in rows]
        made = codec.encode_turn(requests, outputs, ids, AnswerContext('tr"e%e', "1", "", spec))
        assert made == [
            codec.encode(
                requests[n],
                {name: array[n : n + 1] for name, array in outputs.items()},
                AnswerContext('tr"e%e', "1", ids[n].decode(), spec),
            ).body
            for n in range(len(rows))
        ]


def test_every_type_of_output_is_written_alike() -> None:
    """Each type of number, and ONNX Runtime's own kind of INT64."""
    for datatype, array in (
        ("BOOL", np.array([True, False])), ("UINT8", np.array([1, 255], np.uint8)),
        ("INT64", np.array([1, -2], np.longlong)), ("UINT64", np.array([1, 2**64 - 1], np.uint64)),
        ("FP32", np.array([[0.1], [1e-9]], np.float32)), ("FP16", np.array([0.1, 2], np.float16)),
        ("FP32", np.array([0.1, 1e300], np.float64)), ("BYTES", np.array([b"a", b"b"], object)),
        ("FP32", np.zeros((2, 2, 2), np.float32)), ("FP64", np.array([[0.1, 2], [3, 4]], order="F")),
    ):  # fmt: skip
        spec = Signature((TensorSpec("X", "FP32", (-1, 3)),), (TensorSpec("y", datatype, (-1, *array.shape[1:])),))
        for codec, items in ((TF, ()), (INVOKED, ()), (OURS, (0,))):
            request = DecodedRequest({}, 1, items=items)
            context = AnswerContext("m", "1", "id", spec)
            with np.errstate(over="ignore"):
                made = codec.encode_turn([request] * 2, {"y": array}, [b"id"] * 2, context)
                single = [codec.encode(request, {"y": array[n : n + 1]}, context).body for n in range(2)]
            assert made in (None, single)
            assert (made is None) is (datatype == "BYTES" or array.ndim > 2 or (codec is OURS and datatype == "FP16"))


def test_unusual_wishes_are_answered_alone() -> None:
    """More rows, a refused item, outputs that are not one row a request."""
    context = AnswerContext("m", "1", "", signature())
    assert TF.encode_turn([DecodedRequest({}, 2)], {}, [b"1"], context) is None
    assert OURS.encode_turn([DecodedRequest({}, 1, items=(0, 1))], {}, [b"1"], context) is None
    spec = Signature(signature().inputs, (TensorSpec("y", "FP32", (-1,)),))
    for codec, items in ((INVOKED, ()), (OURS, (0,))):
        outputs = {"y": np.zeros(3, np.float32)}
        assert (
            codec.encode_turn([DecodedRequest({}, 1, items=items)], outputs, [b"1"], AnswerContext("m", "1", "", spec))
            is None
        )


def test_an_output_that_is_called_like_the_class() -> None:
    """Where a model has outputs of both names, the class takes the place of one: written alone."""
    outputs = (TensorSpec("label", "INT64", (-1,), (), ("ill", "well")), TensorSpec("label_name", "FP32", (-1,)))
    context = AnswerContext("m", "1", "id", Signature(signature().inputs, outputs))
    arrays = {"label": np.array([1]), "label_name": np.array([0.5], np.float32)}
    request = DecodedRequest({}, 1, items=(0,))
    single = OURS.encode(request, arrays, context).body
    assert json.loads(single)["results"][0]["output"] == {"label": 1, "label_name": "well"}
    assert OURS.encode_turn([request], arrays, [b"id"], context) in (None, [single])
