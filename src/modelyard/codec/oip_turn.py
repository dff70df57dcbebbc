"""All requests of one turn of the loop at once: what single requests share is done once (API-6).

Only for what is usual in every respect; each function says None where it has a doubt, and the caller goes the
single way (`oip`), which gives the same tensors, the same bytes and the same refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from modelyard.codec.oip_answer import array_of
from modelyard.codec.signature_plan import OutputPlan, SignaturePlan, SinglePlan, remember
from modelyard.core.types import Array, Tensors

SAFE_SQUARES = 1e76
"""The sum of squares below which no value can exceed FP32's range (3.4e38), rounding included."""
MOST_SLOT_BYTES = 4096


class Slot:
    """A request that was read and found usual, with a hole where its row of numbers stood.

    Whoever sends the same bytes around another flat list of as many numbers has sent the same request with another
    row. `before` ends ahead of the list's `[`, `after` begins behind its `]`.
    """

    __slots__ = ("after", "before", "commas", "least", "shape")

    def __init__(self, before: bytes, after: bytes, shape: tuple[int, ...], size: int) -> None:
        self.before = before
        self.after = after
        self.shape = shape
        self.commas = size - 1
        self.least = len(before) + len(after) + 2


def slot_of(body: bytes, shape: tuple[int, ...], size: int, parse: Any) -> Slot | None:
    """The slot of a body with one row that the quick way has just read, if its numbers are its last list.

    `parse` is a fresh parser's; the body is read again with an empty list in the hole, to be sure what was cut out.
    """
    start = body.rfind(b"[")
    end = body.find(b"]", start)
    if end < 0 or size < 1 or len(body) - (end - start) > MOST_SLOT_BYTES or body.count(b",", start, end) != size - 1:
        return None
    before, after = body[:start], body[end + 1 :]
    (item,) = parse(before + b"[]" + after)[b"inputs"].as_list()
    if tuple(item["shape"]) != shape or item["data"] not in ([], [[]]):
        return None
    return Slot(before, after, shape, size)


def decode_rows(bodies: Sequence[bytes], slot: Slot, single: SinglePlan, parse: Any) -> Array | None:
    """The rows of bodies that fit the slot, in order, as one tensor; None where any of them does not.

    The lists are cut out and parsed as one document. Each has exactly one `[`, at its start, and one `]`, at its end,
    and they hold nothing but numbers together, so none can reach into its neighbour; with the right number of commas
    each holds the right number of them.
    """
    before, after, commas, least = slot.before, slot.after, slot.commas, slot.least
    start, end = len(before), len(after)
    rows = []
    for body in bodies:
        stop = len(body) - end
        if len(body) < least or not body.startswith(before) or not body.endswith(after):
            return None
        row = body[start:stop]
        if row[:1] != b"[" or row[-1:] != b"]" or row.count(b",") != commas:
            return None
        if row.count(b"[") != 1 or row.count(b"]") != 1:
            return None
        rows.append(row)
    numbers = parse(b"[%b]" % b",".join(rows)).as_buffer(of_type=single.kind)
    wide = np.frombuffer(numbers, dtype=single.wide)
    if wide.size != (commas + 1) * len(rows):
        return None
    narrow = narrowed(wide, single)
    return None if narrow is None else narrow.reshape(len(rows), *slot.shape[1:])


def row_as_text(body: bytes, plan: SignaturePlan) -> bytes | None:
    """The inputs of an answered request that has the slot's form, as the prediction log's JSON: `{input: [[…]]}`, or
    `{input: [{column: number, …}]}` where columns have names. Cut out of the body, not parsed: the server has read and
    answered it. None for any other form."""
    slot: Slot | None = plan.slot
    single = plan.single
    if slot is None or single is None or len(slot.shape) != 2:
        return None
    if len(body) < slot.least or not body.startswith(slot.before) or not body.endswith(slot.after):
        return None
    row = body[len(slot.before) : len(body) - len(slot.after)]
    if row[:1] != b"[" or row[-1:] != b"]" or row.count(b",") != slot.commas:
        return None
    if row.count(b"[") != 1 or row.count(b"]") != 1:
        return None
    name = orjson.dumps(single.name)
    if not single.spec.columns:
        return b"{%b:[%b]}" % (name, row)
    keys = plan.column_keys
    if len(keys) != slot.commas + 1:
        return None
    named = b",".join([key + number for key, number in zip(keys, row[1:-1].split(b","), strict=True)])
    return b"{%b:[{%b}]}" % (name, named)


def narrowed(wide: Array, single: SinglePlan) -> Array | None:
    """The numbers in the input's own type; None where one may not fit."""
    if single.kind == "d":
        if single.dtype == single.wide:
            return wide
        if not wide.dot(wide) < SAFE_SQUARES:
            return None
    elif single.low is not None and (wide.min() < single.low or wide.max() > single.high):
        return None
    return wide.astype(single.dtype, copy=False)


def encode_rows(
    plan: SignaturePlan, model: str, version: str, ids: Sequence[bytes], outputs: Tensors
) -> list[bytes] | None:
    """The answers of so many requests of one row each, all outputs, as JSON: each output is written once and cut at
    the rows. None where an output is no table of numbers."""
    arrays = [array_of(output, outputs) for output in plan.all_outputs]
    for output, array in zip(plan.all_outputs, arrays, strict=True):
        if output.datatype == "BYTES" or array.ndim not in (1, 2) or len(array) != len(ids):
            return None
    form = (model, version, *[array.shape[1:] for array in arrays])
    template = plan.templates.get(form)
    if template is None:
        template = _template(plan, model, version, arrays)
        remember(plan.templates, form, template)
    return [template % row for row in zip(ids, *map(cells_of, arrays), strict=True)]


def _template(plan: SignaturePlan, model: str, version: str, arrays: Sequence[Array]) -> bytes:
    openings = [_opening(output, array) for output, array in zip(plan.all_outputs, arrays, strict=True)]
    return plan.head(model, version).replace(b"%", b"%%") + b'"%b","outputs":[' + b"".join(openings)[:-1] + b"]}"


def _opening(output: OutputPlan, array: Array) -> bytes:
    shape = b"[1]" if array.ndim == 1 else b"[1,%d]" % array.shape[1]
    return output.opening.replace(b"%", b"%%") + shape + b',"data":[%b]},'


def cells_of(array: Array) -> list[bytes]:
    """Each row of a table of one or two dimensions as JSON, without its brackets."""
    text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",") if array.ndim == 1 else text[2:-2].split(b"],[")
