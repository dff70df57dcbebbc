"""The usual request of the scoring forms without a Python object per number: one numeric input, rows of its columns.

As the Open Inference Protocol's quick path (codec/oip.py): what is taken has been verified, at the first doubt the
careful path reads the bytes again. Both give the same tensors for the same bytes.
"""

from __future__ import annotations

import threading
from typing import Any

import orjson
import simdjson

from modelyard.codec.oip import is_natural, quick_data
from modelyard.codec.signature_plan import SignaturePlan, SinglePlan, remember
from modelyard.core.errors import ModelyardError
from modelyard.core.types import Array, CodecBounds

_KEPT_PARSER_BYTES = 1 << 20
_MAX_HEADER_BYTES = 4096
_SPARE_VALUES = 4096
_MIN_DEPTH = 8
DOUBTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ModelyardError)
_parsers = threading.local()


def quick_rows(body: bytes, plan: SignaturePlan, bounds: CodecBounds) -> tuple[str, Array] | None:
    """`{"instances": [[…]]}`, `{"inputs": [[…]]}` or `{"dataframe_split": {"columns", "data"}}` with the columns in
    the model's order, and nothing beside it: which of them, and the only input's tensor. None: look carefully."""
    single = _usable(plan, bounds)
    if single is None:
        return None
    try:
        root = kept_parser(body).parse(body)
        if len(root) != 1:
            return None
        (form,) = root
        value = root[form]
        brackets = body.count(b"[")
        if form == "dataframe_split":
            data = value[b"data"]
            if len(value) != 2 or _ordered(value[b"columns"].mini, plan, single) != len(data[0]):
                return None
            return _checked(form, data, brackets - 1, single, bounds)
        return _checked(form, value, brackets, single, bounds) if form in ("instances", "inputs") else None
    except DOUBTS:
        new_parser()
        return None


def quick_csv(body: bytes, plan: SignaturePlan, bounds: CodecBounds) -> Array | None:
    """CSV of plain numbers, with a header in the model's order or without: the only input's tensor."""
    single = _usable(plan, bounds)
    if single is None or b"[" in body or b'"' in body:
        return None
    if plan.numeric_names:  # then a line of numbers may be the header
        return None
    head, found, rest = body.partition(b"\n")
    if found and len(head) <= _MAX_HEADER_BYTES and head and not head[:1].isdigit() and head[:1] != b"-":
        if not plan.columns or head.rstrip(b"\r") != ",".join(plan.columns).encode():
            return None
        body = rest
    lines = body.rstrip().replace(b"\r\n", b"\n")
    table = b"[[%b]]" % lines.replace(b"\n", b"],[")
    try:
        read = _checked("csv", kept_parser(table).parse(table), table.count(b"["), single, bounds)
    except DOUBTS:
        new_parser()
        return None
    return None if read is None else read[1]


def _usable(plan: SignaturePlan, bounds: CodecBounds) -> SinglePlan | None:
    single = plan.single
    if single is None or len(single.dims) != 2 or not plan.batched or bounds.max_json_depth < _MIN_DEPTH:
        return None
    return single


def _checked(form: str, data: Any, brackets: int, single: SinglePlan, bounds: CodecBounds) -> tuple[str, Array] | None:
    """`brackets` counts every `[` of the rows: one of the list, one of each row, and not one more."""
    shape = (len(data), len(data[0]))
    if brackets != 1 + shape[0] or single.dims[1] not in (-1, shape[1]) or not shape[1]:
        return None
    array = quick_data(data, shape, single)
    if array is None or array.size + _SPARE_VALUES > bounds.max_json_values:
        return None
    # `is_natural` counts the brackets of a whole protocol request: two more than the rows' own
    return (form, array) if is_natural(data, shape, brackets + 2) else None


def _ordered(columns: bytes, plan: SignaturePlan, single: SinglePlan) -> int:
    """How many columns this JSON list names, if they are the model's in its own order (any names, where the model has
    none); else 0. Remembered by its bytes."""
    if len(columns) > _MAX_HEADER_BYTES:
        return 0
    known = plan.orders.get(columns)
    if known is None:
        names: list[Any] = orjson.loads(columns)
        plain = all(type(name) is str for name in names) and len(set(names)) == len(names) and single.name not in names
        good = tuple(names) == plan.columns if plan.columns else plain
        known = len(names) if good else 0
        remember(plan.orders, columns, known)
    return known


def kept_parser(body: bytes) -> Any:
    """This thread's parser; a large document gets its own, so that nothing large is kept."""
    if len(body) > _KEPT_PARSER_BYTES:
        return simdjson.Parser()
    return getattr(_parsers, "kept", None) or new_parser()


def new_parser() -> Any:
    """This thread's parser from now on: one that met a doubt is thrown away, with what is left of its document."""
    _parsers.kept = simdjson.Parser()
    return _parsers.kept
