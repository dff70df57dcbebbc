"""`predictions` and `outputs`: the answers of TensorFlow Serving, MLflow and SageMaker containers.

TensorFlow Serving's rules (tensorflow.org/tfx/serving/api_rest, "Predict API"): one output stands without its name,
several are objects by name; in rows each entry is one row, in columns each output is its whole tensor. BYTES are
text, `{"b64": "…"}` where the output's name ends in `_bytes` or where they are not UTF-8. NaN and the infinities are
null (docs/decisions/0005-nan-in-json.md).
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson

from modelyard.codec.signature_plan import OutputPlan, plan_of
from modelyard.codec.tensors import as_bytes
from modelyard.core.errors import InternalError, InvalidRequestError
from modelyard.core.types import Array, Signature, Tensors

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def in_rows(outputs: Tensors, signature: Signature) -> bytes:
    """`{"predictions": […]}`; where the outputs do not share their first dimension, the object of whole outputs."""
    columns = arrays_of(outputs, signature)
    if len(columns) == 1:
        ((plan, array),) = columns
        return b'{"predictions":%b}' % _dumps(_whole(plan, array))
    counts = {array.shape[0] if array.ndim else -1 for _, array in columns}
    if len(counts) != 1 or -1 in counts:
        return b'{"predictions":%b}' % _dumps({plan.name: _whole(plan, array) for plan, array in columns})
    names = [plan.name for plan, _ in columns]
    rows = zip(*(_cells(plan, array) for plan, array in columns), strict=True)
    return b'{"predictions":%b}' % _dumps([dict(zip(names, row, strict=True)) for row in rows])


def in_columns(outputs: Tensors, signature: Signature) -> bytes:
    """`{"outputs": …}`: the only output's tensor, or an object of them by name."""
    columns = arrays_of(outputs, signature)
    if len(columns) == 1:
        return b'{"outputs":%b}' % _dumps(_whole(*columns[0]))
    return b'{"outputs":%b}' % _dumps({plan.name: _whole(plan, array) for plan, array in columns})


def require_rows(signature: Signature) -> None:
    """Raises shape_mismatch for a model whose outputs are not one row per row of input: it has no answer in rows."""
    for spec in signature.outputs:
        if not spec.shape:
            raise InvalidRequestError(
                "shape_mismatch",
                f"The output `{spec.name}` has no rows; send `inputs` instead of `instances`.",
                field="instances",
                expected="inputs",
                got="instances",
            )


def named_outputs(answered: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """An answer's outputs by name, each its whole nested list: what `in_rows` and `in_columns` wrote, read again."""
    names = [spec.name for spec in signature.outputs]
    said = answered["predictions"] if "predictions" in answered else answered["outputs"]
    if len(names) == 1:
        return {names[0]: said}
    if type(said) is dict:
        return {name: said[name] for name in names}
    return {name: [row[name] for row in said] for name in names}


def arrays_of(outputs: Tensors, signature: Signature) -> list[tuple[OutputPlan, Array]]:
    """Each output in its own type (FP16 as FP32), in the model's order. InternalError if the model gave none."""
    columns: list[tuple[OutputPlan, Array]] = []
    for plan in plan_of(signature).all_outputs:
        array = outputs.get(plan.name)
        if array is None:
            raise InternalError("internal", "The model gave no value for an output.", field=plan.name)
        if plan.datatype == "FP16":
            array = np.asarray(array).astype(np.float32)  # exactly the same numbers
        elif plan.datatype != "BYTES" and array.dtype != plan.dtype:
            array = np.asarray(array).astype(plan.dtype)
        columns.append((plan, array))
    return columns


def _whole(plan: OutputPlan, array: Array) -> Any:
    if plan.datatype == "BYTES":
        return _texts(array.tolist(), plan.name.endswith("_bytes"))
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _cells(plan: OutputPlan, array: Array) -> list[Any]:
    whole = _whole(plan, array)
    return whole if isinstance(whole, list) else list(whole)


def _texts(value: Any, always: bool) -> Any:
    if isinstance(value, list):
        return [_texts(element, always) for element in value]
    data = as_bytes(value)
    if not always:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(data).decode()}


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=_NUMPY)


def _plain(value: Any) -> Any:
    """Numbers that orjson does not know, such as numpy.longlong."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a number")
