"""What the prediction log says of a request is what was sent and answered, less what the policy hides."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.codec import CODECS
from modelyard.codec.log import decode_for_log, subject_of
from modelyard.core.errors import ModelyardError
from modelyard.core.redaction import policy_text, read_policy
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    TensorSpec,
)

OUTPUTS = {"label": np.array([1, 0]), "scores": np.array([[0.25, 0.75], [1, 0]], np.float32)}
ROWS = [{"age": 1, "bmi": 2.5, "sex": 3}, {"age": 4, "bmi": 5, "sex": 6}]
HIDDEN = "[redacted]"
ERROR = EncodedAnswer(
    b'{"error":"wrong","code":"value_invalid","detail":{"field":"items[0].age","got":"secret","example":5},"request_id":"r"}'
)


def logged(
    surface: Surface,
    raw: RawRequest,
    signature: Signature,
    outputs: Any = None,
    redaction: tuple[str, ...] = (),
) -> tuple[Any, Any]:
    """Decodes, answers, and logs."""
    codec = CODECS[surface]
    request = codec.decode(raw, signature, CodecBounds())
    answer = codec.encode(request, outputs or OUTPUTS, AnswerContext("m", "1", "id", signature))
    values = decode_for_log(surface, raw, answer, signature, redaction)
    orjson.dumps(values)
    return values


def oip(data: Any, **more: Any) -> RawRequest:
    item = {"name": "X", "shape": [2, 3], "datatype": "FP32", "data": data}
    return RawRequest(orjson.dumps({"inputs": [item], **more}))


def oip_binary(signature: Signature, values: Any = (1, 2.5, 3, 4, 5, 6), **more: Any) -> RawRequest:
    blob = np.array(values, "<f4").tobytes()
    item = {"name": "X", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    head = orjson.dumps({"inputs": [item], **more})
    return RawRequest(head + blob, None, b"%d" % len(head))


def test_every_form_of_a_request_is_logged_alike(tree: Signature) -> None:
    """Flat, nested and binary give the same rows with their columns named, and the same outputs."""
    expected = ({"X": ROWS}, {"label": [1, 0], "scores": [[0.25, 0.75], [1, 0]]})
    assert logged(Surface.OIP, oip([1, 2.5, 3, 4, 5, 6]), tree) == expected
    assert logged(Surface.OIP, oip([[1, 2.5, 3], [4, 5, 6]]), tree) == expected
    binary = {"parameters": {"binary_data_output": True}}
    assert logged(Surface.OIP, oip_binary(tree, **binary), tree) == expected


def test_items_are_logged_as_they_came(tree: Signature) -> None:
    """A predictions request is a list of items, its answer the list of results."""
    inputs, outputs = logged(Surface.PREDICTIONS, RawRequest(orjson.dumps({"items": ROWS})), tree)
    assert inputs == ROWS
    assert [result["output"]["label"] for result in outputs] == [1, 0]
    positional = RawRequest(orjson.dumps({"items": [{"X": [1, 2.5, 3]}, {"X": [[4, 5, 6]]}]}))
    assert logged(Surface.PREDICTIONS, positional, tree)[0] == ROWS


def test_numbers_are_logged_exactly() -> None:
    """64-bit integers and doubles come through without rounding."""
    spec = TensorSpec("X", "INT64", (-1, 1))
    signature = Signature((spec,), (spec,))
    values = [2**63 - 1, -(2**63)]
    item = {"name": "X", "shape": [2, 1], "datatype": "INT64", "data": values}
    raw = RawRequest(orjson.dumps({"inputs": [item]}))
    outputs = {"X": np.array([[value] for value in values])}
    assert logged(Surface.OIP, raw, signature, outputs) == ({"X": [[v] for v in values]}, {"X": [[v] for v in values]})


def test_bytes_are_text_or_marked_base64(two: Signature) -> None:
    """What is not UTF-8 is logged with a marker, so that it cannot be taken for text."""
    blob = struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 2) + b"\xc3\xa9"
    text = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    n = {"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    head = orjson.dumps({"inputs": [text, n], "parameters": {"binary_data_output": True}})
    outputs = {"out": np.array([b"\xfe", "ok"], object), "sum": np.array([[np.nan], [1.5]])}
    raw = RawRequest(head + blob, None, b"%d" % len(head))
    inputs, answered = logged(Surface.OIP, raw, two, outputs)
    assert inputs == {"text": [[{"base64": "/w=="}], ["é"]], "n": [1, 2]}
    assert answered == {"out": [{"base64": "/g=="}, "ok"], "sum": [[None], [1.5]]}


def test_nan_sent_in_binary_is_null(tree: Signature) -> None:
    """The log's values are JSON."""
    inputs, _ = logged(Surface.OIP, oip_binary(tree, (np.nan, 1, np.inf, 4, 5, 6)), tree)
    assert inputs["X"][0] == {"age": None, "bmi": 1.0, "sex": None}


def test_redacted_columns_are_hidden_in_every_form(tree: Signature) -> None:
    """The same policy hides the same values however they were sent."""
    hidden = [{**row, "age": HIDDEN} for row in ROWS]
    for raw in (oip([1, 2.5, 3, 4, 5, 6]), oip([[1, 2.5, 3], [4, 5, 6]]), oip_binary(tree)):
        assert logged(Surface.OIP, raw, tree, redaction=("age",))[0] == {"X": hidden}
    for items in (ROWS, [{"X": [1, 2.5, 3]}, {"X": [[4, 5, 6]]}]):
        raw = RawRequest(orjson.dumps({"items": items}))
        assert logged(Surface.PREDICTIONS, raw, tree, redaction=("age",))[0] == hidden


def test_redacted_inputs_and_outputs_are_hidden_whole(tree: Signature) -> None:
    """An input's or output's own name hides all of it, and the label with it."""
    inputs, outputs = logged(Surface.OIP, oip([1, 2, 3, 4, 5, 6]), tree, redaction=("X", "scores"))
    assert inputs == {"X": HIDDEN}
    assert outputs == {"label": [1, 0], "scores": HIDDEN}
    raw = RawRequest(orjson.dumps({"items": ROWS}))
    _, results = logged(Surface.PREDICTIONS, raw, tree, redaction=("scores",))
    assert results[0]["output"] == {"label": HIDDEN, "scores": HIDDEN, "label_name": HIDDEN}


def test_columns_without_a_name_are_redacted_by_position() -> None:
    """`X[1]` hides the second feature of a model that names none."""
    signature = Signature((TensorSpec("X", "FP32", (-1, 3)),), ())
    assert decode_for_log(
        Surface.OIP, oip([1, 2, 3, 4, 5, 6]), EncodedAnswer(b'{"outputs":[]}'), signature, ("X[1]",)
    ) == ({"X": [[1, HIDDEN, 3], [4, HIDDEN, 6]]}, {})
    raw = RawRequest(orjson.dumps({"items": [{"X": [1, 2, 3]}, {"X": [[4, 5, 6]]}]}))
    inputs, _ = decode_for_log(Surface.PREDICTIONS, raw, EncodedAnswer(b'{"results":[]}'), signature, ("X[1]",))
    assert inputs == [{"X": [1, HIDDEN, 3]}, {"X": HIDDEN}]


def test_under_a_policy_nothing_unknown_is_shown(tree: Signature) -> None:
    """A misspelt column, an item of another kind and an error's `got` may hold what the policy hides."""
    raw = RawRequest(orjson.dumps({"items": [ROWS[0], {"Age": 44, "bmi": 1, "sex": 1}, "44"]}))
    codec = CODECS[Surface.PREDICTIONS]
    outputs = {name: array[:1] for name, array in OUTPUTS.items()}
    request = codec.decode(raw, tree, CodecBounds())
    answer = codec.encode(request, outputs, AnswerContext("m", "1", "id", tree))
    inputs, results = decode_for_log(Surface.PREDICTIONS, raw, answer, tree, ("age",))
    assert inputs == [{**ROWS[0], "age": HIDDEN}, {"Age": HIDDEN, "bmi": 1, "sex": 1}, HIDDEN]
    assert "44" not in str(results)
    assert results[2]["error"]["detail"]["got"] == HIDDEN


@pytest.mark.parametrize("redaction", [(), ("age",)])
def test_an_error_is_logged_as_it_was_said(redaction: tuple[str, ...], tree: Signature) -> None:
    """The answer of a refused request is the error's JSON; its inputs are shown if they can be read."""
    inputs, outputs = decode_for_log(Surface.OIP, oip([1, 2.5, 3, 4, 5, 6]), ERROR, tree, redaction)
    assert inputs["X"][1]["bmi"] == 5
    assert outputs["code"] == "value_invalid"
    assert outputs["detail"]["got"] == (HIDDEN if redaction else "secret")
    for body in (b"{", b"[]", b'{"items":3}', b'{"items":[{"age":NaN}]}', b'{"inputs":[{"name":"Z"}]}'):
        for surface in Surface:
            assert decode_for_log(surface, RawRequest(body), ERROR, tree, redaction)[0] is None


def test_a_damaged_record_raises_what_the_drain_catches(tree: Signature) -> None:
    """A record that cannot be decoded raises ModelyardError, nothing else."""
    good = EncodedAnswer(b'{"outputs":[]}')
    for raw, answer in (
        (oip_binary(tree), EncodedAnswer(b"{")),
        (RawRequest(b"{"), good),
        (RawRequest(b"{}"), good),
        (RawRequest(b'{"inputs":[{"name":"Z","shape":[1],"data":[1]}]}'), good),
        (oip_binary(tree), EncodedAnswer(b"[1]")),
        (oip_binary(tree), EncodedAnswer(b'{"outputs":[{}]}')),
    ):
        with pytest.raises(ModelyardError):
            decode_for_log(Surface.OIP, raw, answer, tree, ())


KEY = b"the installation's secret"


def _rows(raw: RawRequest, signature: Signature, rules: Any, key: bytes = KEY) -> Any:
    answer = EncodedAnswer(b'{"outputs":[]}' if b'"inputs"' in raw.body else b'{"results":[]}')
    surface = Surface.OIP if b'"inputs"' in raw.body else Surface.PREDICTIONS
    inputs, _ = decode_for_log(surface, raw, answer, signature, rules, key=key)
    return inputs["X"] if isinstance(inputs, dict) else inputs


def test_each_rule_does_what_it_says_in_every_form(tree: Signature) -> None:
    """Dropped columns are gone, masked ones say so, hashed ones are equal where the values are, however sent."""
    rules = {"age": "drop", "bmi": "hash", "sex": "mask"}
    forms = [oip([1, 0.1, 3, 4, 5, 6]), oip([[1, 0.1, 3], [4, 5.0, 6]]), oip_binary(tree, (1, 0.1, 3, 4, 5, 6))]
    for items in ([{"age": 1, "bmi": 0.1, "sex": 3}, {"X": [4, 5, 6]}],):
        forms.append(RawRequest(orjson.dumps({"items": items})))
    (first, *others) = [_rows(raw, tree, rules) for raw in forms]
    assert all(other == first for other in others)
    assert [row.keys() for row in first] == [{"bmi", "sex"}] * 2
    assert {row["sex"] for row in first} == {HIDDEN}
    hashes = [row["bmi"] for row in first]
    assert all(text.startswith("hmac:") and len(text) == 37 for text in hashes)
    assert len(set(hashes)) == 2


def test_a_hash_needs_the_secret(tree: Signature) -> None:
    """Another installation hashes otherwise; without a secret the value is masked, never hashed openly."""
    mine, others = (_rows(oip([1, 2, 3, 4, 5, 6]), tree, {"bmi": "hash"}, key)[0]["bmi"] for key in (KEY, b"other"))
    assert mine != others
    assert _rows(oip([1, 2, 3, 4, 5, 6]), tree, {"bmi": "hash"}, b"")[0]["bmi"] == HIDDEN


def test_an_input_is_dropped_or_hashed_whole(two: Signature) -> None:
    """A rule for an input holds for each of its values; text and its bytes are one value."""
    blob = b"".join(struct.pack("<I", len(text)) + text for text in (b"ann", b"\xff"))
    text = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    n = {"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    head = orjson.dumps({"inputs": [text, n]})
    raw = RawRequest(head + blob, None, b"%d" % len(head))
    answer = EncodedAnswer(b'{"outputs":[]}')
    inputs, _ = decode_for_log(Surface.OIP, raw, answer, two, {"text": "hash", "n": "drop"}, key=KEY)
    assert inputs.keys() == {"text"}
    plain = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["ann", "bob"]}
    again, _ = decode_for_log(
        Surface.OIP, RawRequest(orjson.dumps({"inputs": [plain, n]})), answer, two, {"text": "hash"}, key=KEY
    )
    assert again["text"][0] == inputs["text"][0] != inputs["text"][1]


def test_an_inputs_rule_holds_for_its_columns_too(tree: Signature) -> None:
    """Items that name the columns of a hidden input show none of them."""
    raw = RawRequest(orjson.dumps({"items": ROWS}))
    assert _rows(raw, tree, {"X": "mask"}) == [dict.fromkeys(row, HIDDEN) for row in ROWS]
    assert _rows(raw, tree, {"X": "drop"}) == [{}, {}]


def test_a_column_whose_name_holds_a_comma_is_redacted() -> None:
    """The policy travels as JSON: a comma in a name is part of the name. The old form is read too."""
    signature = Signature((TensorSpec("X", "FP32", (-1, 3), ("a,b", "{c", 'd"')),), ())
    for name in signature.inputs[0].columns:
        (row, _) = _rows(oip([1, 2, 3, 4, 5, 6]), signature, read_policy(policy_text((name,))))
        assert [column for column, value in row.items() if value == HIDDEN] == [name]
    assert read_policy("age,bmi") == {"age": "mask", "bmi": "mask"}
    assert read_policy("none") == read_policy("") == {} == read_policy(policy_text(()))


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (b'{"parameters":{"subject":"a"},"subject":"b"}', "a"),
        (b'{"parameters":{},"subject":"b"}', "b"),
        (b'{"s\\u0075bject":"\\u00e9"}', "é"),
        (b'{"items":[{"subject":"inner"}]}', ""),
        (b'{"subject":""}', ""),
        (b'{"subject":7}', ""),
        (b'["subject"]', ""),
        (b"subject,age\n1,2", ""),
        (b'{"subject":"%s"}' % (b"x" * 256), "x" * 256),
        (b'{"subject":"%s"}' % (b"x" * 257), ""),
        (f'{{"subject":"{"é" * 129}"}}'.encode(), ""),
        (b"{}", ""),
    ],
)
def test_the_subject_is_the_one_that_the_body_names(body: bytes, subject: str) -> None:
    """The protocol's parameter goes before the body's field; what is no subject is none."""
    assert subject_of(RawRequest(body)) == subject
    assert subject_of(RawRequest(body + b"\x00\xff", None, b"%d" % len(body))) == subject


@pytest.mark.parametrize("text", ["1e392", "-1e400", "9" * 400, "NaN", "-Infinity"])
@pytest.mark.parametrize("rule", ["", "hash", "mask", "drop"])
def test_numbers_that_json_cannot_hold_are_logged_as_their_text(tree: Signature, text: str, rule: str) -> None:
    """One row of two is refused for it; the record is JSON, says what was sent, and hides it where a rule says so."""
    body = b'{"items":[{"age":%s,"bmi":2.5,"sex":3},{"age":4,"bmi":5,"sex":6}]}' % text.encode()
    raw = RawRequest(body)
    codec = CODECS[Surface.PREDICTIONS]
    request = codec.decode(raw, tree, CodecBounds())
    assert request.rows == 1
    rules = read_policy(policy_text({"age": rule})) if rule else ()
    answer = codec.encode(
        request, {"label": np.array([1]), "scores": np.array([[1, 0]], np.float32)}, AnswerContext("m", "1", "id", tree)
    )
    inputs, outputs = decode_for_log(Surface.PREDICTIONS, raw, answer, tree, rules, key=b"k")
    assert orjson.loads(orjson.dumps(inputs)) == inputs
    if not rule:
        assert inputs == [{"age": text, "bmi": 2.5, "sex": 3}, {"age": 4, "bmi": 5, "sex": 6}]
    assert len(outputs) == 2
    assert ("1e392" in str(inputs)) is (text == "1e392" and not rule)
