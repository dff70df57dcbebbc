"""From the spooled bytes of a prediction to the JSON values of its record, with the redaction policy applied.

* Inputs of the Open Inference Protocol are `{input: nested list}`; where the signature names the columns, each row
  is an object `{column: value}`. Items of a predictions request are a list of such objects.
* Outputs are `{output: nested list}`, a predictions answer's `results`, or the error's own JSON.
* BYTES are text, or `{"base64": "…"}` where they are not UTF-8. NaN and the infinities are null.
* A redacted column, input or output is left out, masked or hashed, as its rule says (core/redaction.py); a column
  without a name is redacted as `input[3]`. Under a policy, what cannot be matched with a column (an unknown feature,
  an error's `got`) is masked as well.

Numbers of a JSON body are taken as they stand there: no tensor is built, and nothing is rounded on the way.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson

from modelyard.codec.json_strict import parse_for_log
from modelyard.codec.oip import OipCodec
from modelyard.codec.oip_answer import answer_as_text
from modelyard.codec.oip_request import MAX_SUBJECT_BYTES
from modelyard.codec.oip_turn import MOST_SLOT_BYTES, row_as_text
from modelyard.codec.rows import PredictionsCodec
from modelyard.codec.scoring.answers import named_outputs
from modelyard.codec.scoring.invocations import invocations_parts
from modelyard.codec.scoring.parts import Part, to_request
from modelyard.codec.scoring.tfserving import tfserving_parts
from modelyard.codec.signature_plan import SignaturePlan, plan_of
from modelyard.codec.tensors import as_text, from_bytes
from modelyard.core.errors import InternalError, ModelyardError
from modelyard.core.redaction import DROPPED, MASKED, Redaction, Rule, Rules, rules_of
from modelyard.core.types import Array, CodecBounds, EncodedAnswer, RawRequest, Signature, Surface, TensorSpec

_UNBOUNDED = CodecBounds(max_json_depth=2**31, max_json_values=2**31, max_items=2**31)
_NOTHING = Redaction({})
_LOOK_EACH = 64
"""So many records of an unknown form go the long way before one of them is looked at for its form."""
_OIP = OipCodec()
_PREDICTIONS = PredictionsCodec()
_SCORING = {Surface.TFSERVING: tfserving_parts, Surface.INVOCATIONS: invocations_parts}
_ANSWERS = frozenset(("outputs", "results", "predictions"))


def decode_for_log(
    surface: Surface,
    raw: RawRequest,
    answer: EncodedAnswer,
    signature: Signature,
    redaction: Rules | Iterable[str],
    *,
    key: bytes = b"",
    spliced: bool = False,
) -> tuple[Any, Any]:
    """The record's inputs and outputs. The inputs of a refused request are None if they cannot be read. `key` is the
    secret that columns are hashed with; `spliced` allows orjson.Fragment for parts that need not be parsed.

    Raises ModelyardError if the answer, or the request of an answer that is no error, cannot be read.
    """
    try:
        if spliced and not redaction and surface is Surface.OIP and raw.header_length is None:
            cut = _spliced(raw, answer, signature)
            if cut is not None:
                return cut
        return _decode(surface, raw, answer, signature, Redaction(rules_of(redaction), key) if redaction else _NOTHING)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InternalError("internal", "A record's bytes cannot be read.", got=type(error).__name__) from error


def subject_of(raw: RawRequest) -> str:
    """The subject that a request's body names: `parameters.subject`, else `subject`; "" if there is none that the
    server would take (a text of 1 to MAX_SUBJECT_BYTES bytes)."""
    if b"subject" not in raw.body and b"\\u" not in raw.body:
        return ""
    try:
        length = len(raw.body) if raw.header_length is None else int(raw.header_length)
        document = orjson.loads(raw.body[:length])
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    parameters = document.get("parameters")
    named = parameters.get("subject") if isinstance(parameters, dict) else None
    subject = document.get("subject") if named is None else named
    fits = isinstance(subject, str) and 0 < len(subject.encode("utf-8", "replace")) <= MAX_SUBJECT_BYTES
    return str(subject) if fits else ""


def _spliced(raw: RawRequest, answer: EncodedAnswer, signature: Signature) -> tuple[Any, Any] | None:
    """Inputs as they stand in the body of a usual, answered request; None for any other."""
    plan = plan_of(signature)
    text = row_as_text(raw.body, plan)
    if text is None:
        plan.misses += 1
        if plan.single is not None and len(raw.body) <= MOST_SLOT_BYTES and plan.misses % _LOOK_EACH == 1:
            with suppress(ModelyardError):
                _OIP.decode(raw, signature, _UNBOUNDED)  # so that its form is known the next time
        return None
    if answer.header_length is not None:
        return None
    outputs = answer_as_text(answer.body, plan)
    if outputs is not None:
        return orjson.Fragment(text), orjson.Fragment(outputs)
    answered = orjson.loads(answer.body)
    return (orjson.Fragment(text), _oip_outputs(answered, answer, _NOTHING)) if "outputs" in answered else None


def _decode(
    surface: Surface, raw: RawRequest, answer: EncodedAnswer, signature: Signature, hidden: Redaction
) -> tuple[Any, Any]:
    head = answer.body if answer.header_length is None else answer.body[: answer.header_length]
    answered = orjson.loads(head)
    if "error" in answered and _ANSWERS.isdisjoint(answered):
        return _refused_inputs(surface, raw, signature, hidden), _error(answered, hidden)
    if surface is Surface.PREDICTIONS:
        items = parse_for_log(raw.body)["items"]
        return _items(items, signature, hidden), _results(answered["results"], signature, hidden)
    if surface in _SCORING:
        parts = _SCORING[surface](raw, signature, _UNBOUNDED)
        return _scoring_inputs(parts, hidden), _scoring_outputs(answered, signature, hidden)
    return _oip_inputs(raw, signature, hidden), _oip_outputs(answered, answer, hidden)


def _refused_inputs(surface: Surface, raw: RawRequest, signature: Signature, hidden: Redaction) -> Any:
    """What can still be read of a request whose answer is an error; it may be anything, so it is decoded again."""
    try:
        if surface is Surface.PREDICTIONS:
            _PREDICTIONS.decode(raw, signature, _UNBOUNDED)
            return _items(orjson.loads(raw.body)["items"], signature, hidden)
        if surface in _SCORING:
            parts = _SCORING[surface](raw, signature, _UNBOUNDED)
            to_request(parts, plan_of(signature))
            return _scoring_inputs(parts, hidden)
        return _tensors(_OIP.decode(raw, signature, _UNBOUNDED).inputs, signature, hidden)
    except (ModelyardError, ValueError):
        return None


def _error(answered: dict[str, Any], hidden: Redaction) -> dict[str, Any]:
    return masked_error(answered) if hidden else answered


def masked_error(answered: dict[str, Any]) -> dict[str, Any]:
    """An error's JSON without what it quotes of the request."""
    detail = answered.get("detail")
    if not isinstance(detail, dict):
        return answered
    shown = {key: MASKED if key in ("got", "example") else value for key, value in detail.items()}
    return {**answered, "detail": shown}


def _oip_inputs(raw: RawRequest, signature: Signature, hidden: Redaction) -> dict[str, Any]:
    if raw.header_length is not None:
        return _tensors(_OIP.decode(raw, signature, _UNBOUNDED).inputs, signature, hidden)
    specs = plan_of(signature).inputs
    return _present(
        (item["name"], _named(nest(item["data"], item["shape"]), len(item["shape"]), specs[item["name"]], hidden))
        for item in parse_for_log(raw.body)["inputs"]
    )


def _tensors(tensors: dict[str, Array], signature: Signature, hidden: Redaction) -> dict[str, Any]:
    specs = plan_of(signature).inputs
    return _present((name, _named(plain(array), array.ndim, specs[name], hidden)) for name, array in tensors.items())


def _present(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name, without those that a rule drops."""
    return {name: value for name, value in pairs if value is not DROPPED}


def nest(data: list[Any], shape: Sequence[int]) -> Any:
    """Flat row-major data in the shape's natural nesting; nested data as it is."""
    if len(shape) == 1 or (data and type(data[0]) is list):
        return data
    if not shape:
        return data[0]
    if 0 in shape:
        return np.empty(shape).tolist()
    for dim in reversed(shape[1:]):
        data = [data[start : start + dim] for start in range(0, len(data), dim)]
    return data


def plain(array: Array) -> Any:
    """A tensor as nested lists of JSON values."""
    if array.dtype.kind in "OSU":
        return _texts(array.tolist())
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        boxed = array.astype(np.object_)
        boxed[~np.isfinite(array)] = None
        return boxed.tolist()
    return array.tolist()


def _texts(value: Any) -> Any:
    return [_texts(element) for element in value] if isinstance(value, list) else as_text(value)


def _named(value: Any, rank: int, spec: TensorSpec, hidden: Redaction) -> Any:
    """An input's nested lists with its columns named and redacted; DROPPED if a rule leaves it out."""
    if spec.name in hidden:
        return hidden.shown(spec.name, value, spec.datatype)
    if not spec.columns and not hidden:
        return value
    if rank < 2:
        return MASKED if hidden.names.intersection(spec.columns or (f"{spec.name}[0]",)) else value
    if rank > 2:
        return [_named(part, rank - 1, spec, hidden) for part in value]
    return [_row(row, spec, hidden) for row in value]


def _row(row: list[Any], spec: TensorSpec, hidden: Redaction) -> Any:
    if len(spec.columns) == len(row):
        named = dict(zip(spec.columns, row, strict=True))
        return _hide(named, spec.datatype, hidden) if hidden else named
    if not hidden:
        return row
    if spec.columns:
        return [MASKED for _ in row]
    shown = list(row)
    for index in _positions(spec.name, hidden):
        if index < len(shown):
            shown[index] = hidden.in_place(f"{spec.name}[{index}]", shown[index], spec.datatype)
    return shown


def _hide(named: dict[str, Any], datatype: str, hidden: Redaction) -> dict[str, Any]:
    """Features by name, redacted."""
    return _present(
        (name, hidden.shown(name, value, datatype) if name in hidden else value) for name, value in named.items()
    )


def _oip_outputs(answered: dict[str, Any], answer: EncodedAnswer, hidden: Redaction) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    position = answer.header_length or 0
    for item in answered["outputs"]:
        if "data" in item:
            value = nest(item["data"], item["shape"])
        else:
            end = position + item["parameters"]["binary_data_size"]
            blob = memoryview(answer.body)[position:end]
            value = plain(from_bytes(blob, item["datatype"], tuple(item["shape"]), item["name"]))
            position = end
        name = item["name"]
        outputs[name] = hidden.shown(name, value, item["datatype"]) if name in hidden else value
    return _present(outputs.items())


def _scoring_inputs(parts: Sequence[Part], hidden: Redaction) -> dict[str, Any]:
    return _present((part.spec.name, _named(_nested(part), len(part.shape), part.spec, hidden)) for part in parts)


def _nested(part: Part) -> Any:
    if isinstance(part.values, np.ndarray):
        return plain(part.values)
    return nest(_texts(part.values) if part.spec.datatype == "BYTES" else part.values, part.shape)


def _scoring_outputs(answered: dict[str, Any], signature: Signature, hidden: Redaction) -> dict[str, Any]:
    specs = plan_of(signature).outputs
    outputs = {name: _unwrapped(value) for name, value in named_outputs(answered, signature).items()}
    return _present(
        (name, hidden.shown(name, value, specs[name].datatype) if name in hidden else value)
        for name, value in outputs.items()
    )


def _unwrapped(value: Any) -> Any:
    """Output values with base64 as the log writes it: text, or `{"base64": "…"}`."""
    if isinstance(value, list):
        return [_unwrapped(element) for element in value]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return as_text(base64.b64decode(value["b64"]))
    return value


def _items(items: Any, signature: Signature, hidden: Redaction) -> Any:
    plan = plan_of(signature)
    if plan.columns and not hidden and all(type(item) is dict and plan.columns[0] in item for item in items):
        return items
    return [_item(item, signature, hidden) for item in items]


def _item(item: Any, signature: Signature, hidden: Redaction) -> Any:
    plan = plan_of(signature)
    if not isinstance(item, dict):
        return MASKED if hidden else item
    if plan.columns and item.keys() == plan.inputs.keys():
        (spec,) = signature.inputs
        row = item[spec.name]
        row = row[0] if type(row) is list and len(row) == 1 and type(row[0]) is list else row
        if spec.name in hidden:
            return _present([(spec.name, hidden.shown(spec.name, row, spec.datatype))])
        return _row(row, spec, hidden) if type(row) is list else MASKED
    if not hidden:
        return item
    if plan.columns:
        return _present((key, _column(key, value, signature.inputs[0], hidden)) for key, value in item.items())
    return _present((key, _feature(key, value, plan.inputs.get(key), hidden)) for key, value in item.items())


def _column(name: str, value: Any, spec: TensorSpec, hidden: Redaction) -> Any:
    """One feature of the only input, by its column's name; the input's own rule goes before the column's."""
    if name not in spec.columns:
        return MASKED
    rule = next((known for known in (spec.name, name) if known in hidden), None)
    return value if rule is None else hidden.shown(rule, value, spec.datatype)


def _feature(name: str, value: Any, spec: TensorSpec | None, hidden: Redaction) -> Any:
    if spec is None:
        return MASKED
    if name in hidden:
        return hidden.shown(name, value, spec.datatype)
    if not (hidden.names.intersection(spec.columns) or _positions(name, hidden)):
        return value
    fits = type(value) is list and len(spec.shape) == 2 and not any(type(part) is list for part in value)
    return _row(value, spec, hidden) if fits else MASKED


def _positions(name: str, hidden: Redaction) -> list[int]:
    """The features that the policy names by position: 3 for `name[3]`."""
    start = len(name) + 1
    texts = [column[start:-1] for column in hidden.names if column.startswith(f"{name}[") and column.endswith("]")]
    return [int(text) for text in texts if text.isascii() and text.isdigit()]


def _results(results: list[Any], signature: Signature, hidden: Redaction) -> list[Any]:
    if not hidden:
        return results
    gone = hidden.names.intersection(plan_of(signature).outputs)
    return [_result(result, gone, plan_of(signature), hidden) for result in results]


def _result(result: dict[str, Any], gone: frozenset[str], plan: SignaturePlan, hidden: Redaction) -> dict[str, Any]:
    if "error" in result:
        return {**result, "error": _error(result["error"], hidden)}
    return {**result, "output": _present(_output(result["output"], gone, plan, hidden))}


def _output(
    output: dict[str, Any], gone: frozenset[str], plan: SignaturePlan, hidden: Redaction
) -> Iterator[tuple[str, Any]]:
    """An item's outputs, redacted; the label that was made of a redacted output goes with it."""
    for name, value in output.items():
        if name in gone:
            yield name, hidden.shown(name, value, plan.outputs[name].datatype)
        elif gone and name in ("label", "label_name"):
            yield name, DROPPED if hidden.rule(sorted(gone)) is Rule.DROP else MASKED
        else:
            yield name, value
