"""The answer of the Open Inference Protocol, put together from constant pieces and the tensors' own bytes.

NaN and the infinities become null in JSON (docs/decisions/0005-nan-in-json.md); binary carries them exactly.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from modelyard.codec.signature_plan import OutputPlan, SignaturePlan, plan_of
from modelyard.codec.tensors import as_bytes, to_bytes
from modelyard.core.errors import InternalError, InvalidRequestError
from modelyard.core.types import AnswerContext, Array, DecodedRequest, EncodedAnswer, Tensors


def encode_answer(request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
    """The outputs that were asked for, in the order in which they were asked for."""
    plan = plan_of(context.signature)
    wanted = request.outputs
    client_id = request.client_id
    shown_id = b'"' + context.prediction_id.encode() + b'"' if client_id is None else orjson.dumps(client_id)
    opening = plan.head(context.model, context.version) + shown_id + b',"outputs":['
    binary = request.binary or request.raw_binary
    if not wanted and not binary:
        written = [_json_output(plan_output, outputs) for plan_output in plan.all_outputs]
        return EncodedAnswer(opening + b",".join(written) + b"]}")
    return _mixed_answer(opening, _choices(request, plan, binary), outputs)


def answer_as_text(body: bytes, plan: SignaturePlan) -> bytes | None:
    """The outputs of an answer of one row, as the prediction log's JSON: `{output: [[…]]}`. Cut out of the answer,
    not parsed: it is the server's own. None for any other form (text, tensors, an error, chosen outputs)."""
    form = plan.answer_form
    if form is None:
        form = plan.answer_form = _form_of(plan)
    found = form.fullmatch(body)
    if found is None:
        return None
    written = []
    parts = iter(found.groups())
    for key, columns, data in zip(plan.output_keys, parts, parts, strict=True):
        written.append(key + data if columns is None else b"%b[%b]" % (key, data))
    return b"{" + b",".join(written) + b"}"


def _form_of(plan: SignaturePlan) -> re.Pattern[bytes]:
    """What an answer of one row with all outputs looks like; groups: an output's columns, if it has any, its data."""
    text = rb'"[^"\\]*"'
    head = rb'\{"model_name":%b,"model_version":%b,"id":%b,"outputs":\[' % (text, text, text)
    data = rb'\[1(,[0-9]+)?\],"data":(\[[^\[\]{}"]*\])\}'
    outputs = [re.escape(output.opening) + data for output in plan.all_outputs]
    return re.compile(head + b",".join(outputs) + rb"\]\}")


_Choice = tuple[OutputPlan, bool, int]
"""An output, whether it goes in binary, how many classes of it were asked for."""


def _choices(request: DecodedRequest, plan: SignaturePlan, binary: bool) -> list[_Choice]:
    if not request.outputs:
        return [(output, binary, 0) for output in plan.all_outputs]
    return [
        (plan.outputs[wanted.name], binary if wanted.binary is None else wanted.binary, wanted.classes)
        for wanted in request.outputs
    ]


def _mixed_answer(opening: bytes, choices: list[_Choice], outputs: Tensors) -> EncodedAnswer:
    written: list[bytes] = []
    blobs: list[bytes] = []
    for output, binary, classes in choices:
        if not binary and not classes:
            written.append(_json_output(output, outputs))
            continue
        array = array_of(output, outputs)
        opened, datatype = output.opening, output.datatype
        if classes:
            array, opened, datatype = _top_classes(output, array, classes), output.opening_of_classes, "BYTES"
        shape = opened + orjson.dumps(array.shape)
        if not binary:
            written.append(b'%b,"data":%b}' % (shape, orjson.dumps(array.ravel().tolist())))
            continue
        blob = to_bytes(array, datatype)
        blobs.append(blob)
        written.append(b'%b,"parameters":{"binary_data_size":%d}}' % (shape, len(blob)))
    head = opening + b",".join(written) + b"]}"
    if not any(binary for _, binary, _ in choices):
        return EncodedAnswer(head)
    return EncodedAnswer(head + b"".join(blobs), len(head))


def _top_classes(output: OutputPlan, array: Array, most: int) -> Array:
    """The `most` highest scores of each row as `value:index:label`, highest first (Triton's classification extension,
    docs/protocol/extension_classification.md); without a label `value:index`."""
    rows = array.reshape(len(array), -1) if output.batched and array.ndim else array.reshape(1, -1)
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :most]
    labels = output.labels
    texts = np.empty(order.shape, dtype=np.object_)
    for at, index in np.ndenumerate(order):
        value = rows[at[0], index]
        text = f"{value:f}" if rows.dtype.kind == "f" else str(int(value))
        texts[at] = f"{text}:{index}:{labels[index]}" if index < len(labels) else f"{text}:{index}"
    return texts if output.batched else texts[0]


def _json_output(output: OutputPlan, outputs: Tensors) -> bytes:
    array = array_of(output, outputs)
    if output.datatype == "BYTES":
        data = orjson.dumps(_texts(output, array))
    else:
        data = orjson.dumps(array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    return b'%b%b,"data":%b}' % (output.opening, orjson.dumps(array.shape), data)


def array_of(output: OutputPlan, outputs: Tensors) -> Array:
    """The output in its own type. InternalError if the model gave none."""
    array = outputs.get(output.name)
    if array is None:
        raise InternalError("internal", "The model gave no value for an output.", field=output.name)
    if array.dtype != output.dtype and output.datatype != "BYTES":
        return np.asarray(array).astype(output.dtype)
    return array


def _texts(output: OutputPlan, array: Array) -> list[Any]:
    try:
        return [value if isinstance(value, str) else as_bytes(value).decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise InvalidRequestError(
            "value_invalid",
            f"Output {output.name} holds bytes that are not UTF-8; ask for it as binary data.",
            field=output.name,
            expected="parameters.binary_data true for this output",
            got="bytes that are not UTF-8",
            example={"name": output.name, "parameters": {"binary_data": True}},
        ) from None
