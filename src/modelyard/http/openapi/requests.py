"""The request schema of one version on each surface, with its real names, shapes and types, and an example that it
answers. The example is the owner's, told in each surface's words, or one made from the signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from modelyard.codec import CODECS
from modelyard.codec.signature_plan import plan_of
from modelyard.core.errors import ModelyardError
from modelyard.core.types import CodecBounds, RawRequest, Signature, Surface, Tensors, TensorSpec
from modelyard.models.ports import Version
from modelyard.models.rows import example_request, seeded_rows

Json = dict[str, Any]

_INTEGER = {
    "UINT8": (0, 2**8 - 1), "UINT16": (0, 2**16 - 1), "UINT32": (0, 2**32 - 1), "UINT64": (0, 2**64 - 1),
    "INT8": (-(2**7), 2**7 - 1), "INT16": (-(2**15), 2**15 - 1), "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}  # fmt: skip


_SUBJECT: Json = {"type": "string", "maxLength": 256, "description": "Whom it is about; keeps its version."}


def value_schema(datatype: str) -> Json:
    """One element."""
    if datatype in _INTEGER:
        low, high = _INTEGER[datatype]
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": {"BOOL": "boolean", "BYTES": "string"}.get(datatype, "number")}


def request_schema(surface: Surface, signature: Signature, max_items: int) -> Json | None:
    """The body that the surface takes for this signature; None where it cannot ask for this model."""
    write = _SCHEMAS.get(surface)
    return None if write is None or not askable(surface, signature) else write(signature, max_items)


def request_example(surface: Surface, version: Version) -> Json | None:
    """A body of one row that the version answers; None where the surface cannot ask for this model."""
    signature = version.manifest.signature
    write = _EXAMPLES.get(surface)
    if write is None or not askable(surface, signature):
        return None
    return write(example_request(signature, version.manifest.example), signature)


def askable(surface: Surface, signature: Signature) -> bool:
    """Rows exist only where every input has the batch as its first dimension."""
    return surface is Surface.OIP or plan_of(signature).batched


def _oip_schema(signature: Signature, max_items: int) -> Json:
    count = len(signature.inputs)
    inputs = [_oip_input(spec) for spec in signature.inputs]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "Echoed."},
            "inputs": {
                "type": "array",
                "minItems": count,
                "maxItems": count,
                "items": inputs[0] if count == 1 else {"oneOf": inputs},
            },
            "outputs": {
                "type": "array",
                "description": "The outputs to answer; all if left out.",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"enum": [spec.name for spec in signature.outputs]}},
                },
            },
            "parameters": {"type": "object"},
        },
    }


def _oip_input(spec: TensorSpec) -> Json:
    named = f" The columns are {', '.join(spec.columns)}." if spec.columns else ""
    return {
        "type": "object",
        "title": spec.name,
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": {
                "type": "array",
                "minItems": len(spec.shape),
                "maxItems": len(spec.shape),
                "prefixItems": [{"type": "integer", **_size(size)} for size in spec.shape],
                "description": f"{list(spec.shape)}, where -1 varies.",
            },
            "data": {
                "type": "array",
                "description": f"All elements in row-major order, flat or nested.{named}",
                "items": {"anyOf": [value_schema(spec.datatype), {"type": "array"}]},
            },
        },
    }


def _size(size: int) -> Json:
    return {"minimum": 0} if size < 0 else {"const": size}


def _items_schema(signature: Signature, max_items: int) -> Json:
    return {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {
            "items": {"type": "array", "minItems": 1, "maxItems": max_items, "items": _row_schema(signature)},
            "subject": _SUBJECT,
        },
    }


def _row_schema(signature: Signature) -> Json:
    """One row by name: the columns of the only input, or the inputs."""
    columns = plan_of(signature).columns
    if columns:
        one = value_schema(signature.inputs[0].datatype)
        properties: Json = dict.fromkeys(columns, one)
    else:
        properties = {spec.name: _row_values(spec) for spec in signature.inputs}
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _row_values(spec: TensorSpec) -> Json:
    one = value_schema(spec.datatype)
    if all(size in (1, -1) for size in spec.shape[1:]):
        return {"anyOf": [one, {"type": "array"}]}
    return {"type": "array", "description": f"One row: {list(spec.shape[1:])}, where -1 varies; flat or nested."}


def _instances_schema(signature: Signature, max_items: int) -> Json:
    rows = {"type": "array", "minItems": 1, "items": _instance_schema(signature)}
    return {"type": "object", "required": ["instances"], "properties": {"instances": rows, "subject": _SUBJECT}}


def _instance_schema(signature: Signature) -> Json:
    """One row as TensorFlow Serving writes it: by name, or the values alone of a model's only input."""
    named = _row_schema(signature)
    return {"anyOf": [named, _row_values(signature.inputs[0])]} if len(signature.inputs) == 1 else named


def _scoring_schema(signature: Signature, max_items: int) -> Json:
    if not plan_of(signature).columns:
        return _instances_schema(signature, max_items)
    records = {"type": "array", "minItems": 1, "items": _row_schema(signature)}
    return {
        "type": "object",
        "required": ["dataframe_records"],
        "properties": {"dataframe_records": records, "subject": _SUBJECT},
    }


def _oip_example(example: Json, signature: Signature) -> Json:
    return example


def _items_example(example: Json, signature: Signature) -> Json:
    return {"items": [_row(_tensors(example, signature), signature)]}


def _instances_example(example: Json, signature: Signature) -> Json:
    row = _row(_tensors(example, signature), signature)
    alone = len(signature.inputs) == 1 and not plan_of(signature).columns
    return {"instances": [next(iter(row.values())) if alone else row]}


def _scoring_example(example: Json, signature: Signature) -> Json:
    if not plan_of(signature).columns:
        return _instances_example(example, signature)
    return {"dataframe_records": [_row(_tensors(example, signature), signature)]}


def _row(tensors: Tensors, signature: Signature) -> Json:
    columns = plan_of(signature).columns
    first = {name: _plain(array[0].tolist()) for name, array in tensors.items()}
    if columns:
        (row,) = first.values()
        return dict(zip(columns, row, strict=True))
    return first


def _tensors(example: Json, signature: Signature) -> Tensors:
    """The example's tensors; seeded ones where it cannot be read (an example with other names, from before)."""
    try:
        return CODECS[Surface.OIP].decode(RawRequest(orjson.dumps(example)), signature, CodecBounds()).inputs
    except ModelyardError:
        return seeded_rows(signature, 1, seed=0)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_SCHEMAS: Mapping[Surface, Callable[[Signature, int], Json]] = {
    Surface.OIP: _oip_schema,
    Surface.PREDICTIONS: _items_schema,
    Surface.TFSERVING: _instances_schema,
    Surface.INVOCATIONS: _scoring_schema,
}
_EXAMPLES: Mapping[Surface, Callable[[Json, Signature], Json]] = {
    Surface.OIP: _oip_example,
    Surface.PREDICTIONS: _items_example,
    Surface.TFSERVING: _instances_example,
    Surface.INVOCATIONS: _scoring_example,
}
