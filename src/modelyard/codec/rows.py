"""Modelyard's own predictions route: named features in, one result or one error per item out.

Request: `{"items": [{feature: value, …}, …], "subject"?: "…"}`, 1 to `max_items` items. An item's keys are

* the columns of the model's only input, where the signature names them: `{"age": 61, "bmi": 24.5}`;
* else (and always allowed) the names of the inputs, each with one row's values, flat or nested in the input's own
  shape: `{"X": [61, 24.5]}`. An input of one element a row takes the bare value as well: `{"age": 61}`. Columns
  without a name are called `X[0]`, `X[1]`, … in errors.

Answer: `{"prediction_id", "model", "version", "results": […]}` with one result per item, in order:

* `{"index": 0, "output": {name: value, …}}`: one entry per output; an output of one element a row is a bare value,
  BYTES are text (`{"base64": "…"}` if not UTF-8), NaN and the infinities are null. Where the signature gives class
  labels, `"label"` holds the name of the predicted class (`"label_name"` if an output is itself called `label`):
  the label at an integer output's value, else at the highest of as many scores as there are labels;
* `{"index": 1, "error": {"code", "message", "detail"}}`: this item was refused and hurt none of its neighbours.

The request as a whole is refused only where items cannot be told apart (JSON, no items, too many items).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np
import orjson

from modelyard.codec.json_strict import parse, printable
from modelyard.codec.oip_request import fits, read_subject
from modelyard.codec.signature_plan import plan_of
from modelyard.codec.tensors import as_text, flatten, from_values, shown
from modelyard.codec.together.answers import label_key, results_together
from modelyard.codec.together.codec import LearningCodec
from modelyard.core.errors import InternalError, InvalidRequestError
from modelyard.core.types import (
    AnswerContext,
    Array,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    ItemError,
    RawRequest,
    Signature,
    Surface,
    Tensors,
    TensorSpec,
)

_Row = dict[str, Array]


class PredictionsCodec(LearningCodec):
    """Items to tensors and back for `/v1/models/{name}/predictions`. Stateless."""

    def read(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """One row per good item; a bad item is an ItemError in `items`. With no good item `inputs` is empty and
        `rows` 0. Raises InvalidRequestError where the request as a whole cannot be read."""
        document = parse(raw.body, bounds, keep_constants=True)
        items = _items_of(document, signature, bounds)
        subject = read_subject(document.get("subject"), "subject")
        decoded = _all_at_once(items, signature)
        if decoded is not None:
            return DecodedRequest(
                decoded, _rows(len(items), signature), items=tuple(range(len(items))), subject=subject
            )
        rows, marks = _one_by_one(items, signature)
        inputs = _stacked(rows, signature)
        return DecodedRequest(inputs, _rows(len(rows), signature), items=marks, subject=subject)

    def forms_of(self, content_type: bytes | None, signature: Signature) -> Any:
        """All bodies are JSON."""
        return Surface.PREDICTIONS

    def encode(self, request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
        """One result per item, in the items' order. `outputs` may be empty where every item was refused."""
        good = sum(1 for item in request.items if isinstance(item, int))
        rows = _output_rows(outputs, context.signature, good) if good else []
        results = [
            {"index": index, "error": _error_of(item)}
            if isinstance(item, ItemError)
            else {"index": index, "output": rows[item]}
            for index, item in enumerate(request.items)
        ]
        answer = {
            "prediction_id": context.prediction_id,
            "model": context.model,
            "version": context.version,
            "results": results,
        }
        return EncodedAnswer(orjson.dumps(answer, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY))

    def encode_turn(
        self, requests: Sequence[DecodedRequest], outputs: Tensors, ids: Sequence[bytes], context: AnswerContext
    ) -> list[bytes] | None:
        """See TurnCodec; None unless each has one item, a good one."""
        if any(request.items != (0,) for request in requests):
            return None
        return results_together(outputs, ids, context, lambda: _labels(outputs, context.signature, len(ids)))


def _plain(value: Any) -> Any:
    """Numbers that orjson does not know: ONNX Runtime's INT64 comes as numpy.longlong, a type beside numpy.int64."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number")


def _rows(count: int, signature: Signature) -> int:
    return count if plan_of(signature).batched else 0


def _items_of(document: Any, signature: Signature, bounds: CodecBounds) -> list[Any]:
    example = {"items": [_example_item(signature)]}
    if type(document) is not dict:
        _refuse("field_type", "body", "an object with items", shown(document), example)
    for key in document:
        if key not in ("items", "subject"):
            _refuse("field_unknown", printable(key), "only items and subject", printable(key), example)
    if "items" not in document:
        _refuse("field_missing", "items", "a list of items", None, example)
    items = document["items"]
    if type(items) is not list:
        _refuse("field_type", "items", "a list of items", shown(items), example)
    if not items:
        _refuse("batch_empty", "items", f"1 to {bounds.max_items} items", 0, example)
    if any(spec.shape[:1] not in ((), (-1,), (1,)) for spec in signature.inputs):
        shapes = [list(spec.shape) for spec in signature.inputs]
        _refuse(
            "shape_mismatch",
            "items",
            "a model that takes rows; ask this one by the Open Inference Protocol",
            shapes,
            None,
        )
    most = bounds.max_items if plan_of(signature).batched else 1
    if len(items) > most:
        raise InvalidRequestError(
            "too_many_items",
            f"{len(items)} items were sent, {most} is the most.",
            field="items",
            expected=f"1 to {most} items",
            got=len(items),
        )
    return items


def _refuse(code: str, field: str, expected: str, got: Any, example: Any) -> NoReturn:
    raise InvalidRequestError(
        code, f"{field}: expected {expected}.", field=field, expected=expected, got=got, example=example
    )


MOST_EXAMPLE_COLUMNS = 16
"""An example with more would be longer than most requests, once for each item that is wrong."""


def _example_item(signature: Signature) -> dict[str, Any]:
    columns = plan_of(signature).columns
    if columns:
        shown = columns if len(columns) <= MOST_EXAMPLE_COLUMNS else columns[:3]
        return dict.fromkeys(shown, 0)
    return {spec.name: "text" if spec.datatype == "BYTES" else [0] for spec in signature.inputs}


def _all_at_once(items: list[Any], signature: Signature) -> dict[str, Array] | None:
    """The items as one tensor if all of them give all columns and nothing is wrong with any; else None."""
    columns = plan_of(signature).columns
    if len(columns) < 2 or any(type(item) is not dict or len(item) != len(columns) for item in items):
        return None
    (spec,) = signature.inputs
    try:
        flat = list(chain.from_iterable(map(itemgetter(*columns), items)))
        return {spec.name: from_values(flat, spec.datatype, "items").reshape(len(items), len(columns))}
    except (KeyError, InvalidRequestError):
        return None


def _one_by_one(items: list[Any], signature: Signature) -> tuple[list[_Row], tuple[int | ItemError, ...]]:
    rows: list[_Row] = []
    marks: list[int | ItemError] = []
    for index, item in enumerate(items):
        try:
            row = _row_of(item, f"items[{index}]", signature)
            _check_like(row, rows, f"items[{index}]")
        except InvalidRequestError as error:
            marks.append(ItemError(error.code, error.message, error.detail))
        else:
            marks.append(len(rows))
            rows.append(row)
    return rows, tuple(marks)


def _stacked(rows: list[_Row], signature: Signature) -> dict[str, Array]:
    if len(rows) < 2:
        return rows[0] if rows else {}
    return {spec.name: np.concatenate([row[spec.name] for row in rows]) for spec in signature.inputs}


def _check_like(row: _Row, rows: list[_Row], field: str) -> None:
    for name, array in row.items() if rows else ():
        expected = rows[0][name].shape
        if array.shape != expected:
            raise InvalidRequestError(
                "shape_mismatch",
                f"{field}.{printable(name)} has another shape than the items before it.",
                field=f"{field}.{printable(name)}",
                expected=list(expected[1:]),
                got=list(array.shape[1:]),
            )


def _row_of(item: Any, field: str, signature: Signature) -> _Row:
    """One item as tensors with a first dimension of 1."""
    if type(item) is not dict:
        _refuse("field_type", field, "an object", shown(item), _example_item(signature))
    names = tuple(spec.name for spec in signature.inputs)
    columns = plan_of(signature).columns
    by_input = item.keys() == set(names) and item.keys() != set(columns)
    if not columns or by_input:
        _check_names(item, names, field, signature)
        return {
            spec.name: _input_row(item[spec.name], spec, f"{field}.{printable(spec.name)}") for spec in signature.inputs
        }
    _check_names(item, columns, field, signature)
    (spec,) = signature.inputs
    return {spec.name: _columns_row(item, columns, spec, field)}


def _columns_row(item: dict[str, Any], columns: tuple[str, ...], spec: TensorSpec, field: str) -> Array:
    try:
        return from_values([item[column] for column in columns], spec.datatype, field).reshape(1, len(columns))
    except InvalidRequestError:
        for column in columns:
            from_values((item[column],), spec.datatype, f"{field}.{printable(column)}")
        raise


def _check_names(item: dict[str, Any], names: Sequence[str], field: str, signature: Signature) -> None:
    missing = [name for name in names if name not in item]
    if missing:
        place = f"{field}.{printable(missing[0])}"
        _refuse("field_missing", place, "a value for every feature", None, _example_item(signature))
    for key in item:
        if key not in names:
            place = f"{field}.{printable(key)}"
            _refuse("field_unknown", place, "only the model's features", printable(key), _example_item(signature))


def _input_row(value: Any, spec: TensorSpec, field: str) -> Array:
    """One input's row, flat, nested or a bare value; the batch dimension is put before it."""
    wanted = spec.shape[1:]
    if type(value) is not list and all(dim in (1, -1) for dim in wanted):
        return from_values((value,), spec.datatype, field).reshape((1,) * len(spec.shape))
    shape = _shape_of(value, wanted, field)
    return from_values(flatten(value, shape, field), spec.datatype, field).reshape((1, *shape))


def _shape_of(value: Any, wanted: tuple[int, ...], field: str) -> tuple[int, ...]:
    """The row's shape: the signature's, or the data's own where the signature leaves dimensions free."""
    natural: list[int] = []
    level = value
    while type(level) is list:
        natural.append(len(level))
        level = level[0] if level else None
    if fits(tuple(natural), wanted):
        return tuple(natural)
    free = [axis for axis, dim in enumerate(wanted) if dim < 0]
    if len(natural) == 1 and len(free) <= 1:
        known = math.prod(dim for dim in wanted if dim >= 0)
        shape = [natural[0] // known if dim < 0 and known else max(dim, 0) for dim in wanted]
        if math.prod(shape) == natural[0]:
            return tuple(shape)
    raise InvalidRequestError(
        "shape_mismatch" if natural else "field_type",
        f"{field} does not have the shape of the model's input.",
        field=field,
        expected=list(wanted),
        got=natural if natural else shown(value),
    )


def _error_of(item: ItemError) -> dict[str, Any]:
    return {"code": item.code, "message": item.message, "detail": item.detail}


def _output_rows(outputs: Tensors, signature: Signature, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise InternalError("internal", "The model gave no value for an output.", field=spec.name)
        for row, value in zip(rows, _values(outputs[spec.name], spec, count), strict=True):
            row[spec.name] = value
    key = label_key(signature)
    for row, label in zip(rows, _labels(outputs, signature, count), strict=False):
        if label is not None:
            row[key] = label
    return rows


def _values(array: Array, spec: TensorSpec, count: int) -> list[Any]:
    if array.shape[:1] != (count,):
        if count != 1:
            raise InternalError("internal", "An output does not have one row per item.", field=spec.name)
        array = array.reshape((1, *array.shape))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(count)
    if array.dtype.kind in "OSU":
        return _texts(array.tolist())
    return list(np.ascontiguousarray(array))


def _texts(values: list[Any]) -> list[Any]:
    return [_texts(value) if isinstance(value, list) else as_text(value) for value in values]


def _labels(outputs: Tensors, signature: Signature, count: int) -> list[str | None]:
    """The predicted class of each row by the first output that tells it, integers before scores."""
    labelled = [spec for spec in signature.outputs if spec.labels]
    for spec in sorted(labelled, key=lambda spec: outputs[spec.name].dtype.kind not in "iu"):
        array = outputs[spec.name]
        if array.dtype.kind in "iu" and array.size == count:
            chosen = array.ravel().tolist()
        elif array.dtype.kind == "f" and array.shape == (count, len(spec.labels)):
            chosen = array.argmax(axis=1).tolist()
        else:
            continue
        return [spec.labels[index] if 0 <= index < len(spec.labels) else None for index in chosen]
    return []
