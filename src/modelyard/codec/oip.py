"""The Open Inference Protocol v2: JSON and binary tensors.

A request that is usual in every respect (one numeric input, JSON, no surprises) takes the quick path: simdjson fills
a NumPy buffer and no number becomes a Python object. The quick path accepts only what it has verified; at the first
doubt it gives up without an opinion, and the careful path (`oip_request`) reads the bytes again and names what is
wrong. Both paths give the same tensors for the same bytes.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import simdjson

from modelyard.codec.json_strict import parse
from modelyard.codec.oip_answer import encode_answer
from modelyard.codec.oip_request import read_flag, read_object, read_outputs, read_request, read_subject
from modelyard.codec.oip_turn import Slot, decode_rows, encode_rows, narrowed, slot_of
from modelyard.codec.signature_plan import SignaturePlan, SinglePlan, plan_of
from modelyard.codec.tensors import MAX_ELEMENTS, bad_size, from_bytes
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.core.types import (
    DATATYPES,
    AnswerContext,
    Array,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    OutputRequest,
    RawRequest,
    Signature,
    Tensors,
)

_KEPT_PARSER_BYTES = 1 << 20
_MAX_EXTRA_BYTES = 4096
_MIN_QUICK_DEPTH = 8
_LEARN_AFTER = 64  # requests of another form before it is remembered instead: two clients must not take turns in that
_KNOWN_KEYS = frozenset(("inputs", "id", "outputs", "parameters"))

# A sum of squares that overflows is the answer "too large", not an accident; numpy.errstate would cost microseconds.
warnings.filterwarnings("ignore", "overflow encountered in dot", RuntimeWarning, r"modelyard\.codec\.oip")


class OipCodec:
    """Bytes to tensors and back for `/v2/models/{name}/infer`. May be used by any number of threads."""

    def __init__(self) -> None:
        self._local = threading.local()

    def decode(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """The request as writable tensors that fit the signature. Raises InvalidRequestError, naming the field."""
        plan = plan_of(signature)
        body = raw.body
        if raw.header_length is None:
            if plan.single is not None and bounds.max_json_depth >= _MIN_QUICK_DEPTH:
                decoded = self._quick(body, plan, plan.single, bounds)
                if decoded is not None:
                    return decoded
            return read_request(body, memoryview(b""), False, plan, bounds)
        length = _header_length(raw.header_length, len(body))
        if length == 0:
            return _raw_binary(body, plan)
        return read_request(body[:length], memoryview(body)[length:], True, plan, bounds)

    def encode(self, request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
        """The answer, its outputs in the requested order. Raises value_invalid where bytes cannot become JSON text."""
        return encode_answer(request, outputs, context)

    def decode_turn(
        self,
        bodies: Sequence[bytes],
        signature: Signature,
        bounds: CodecBounds,
        content_type: bytes | None = None,
    ) -> list[DecodedRequest | None]:
        """The requests that have the form of the last usual one, read together; None for all others."""
        plan = plan_of(signature)
        slot: Slot | None = plan.slot
        if slot is None or plan.single is None or slot.commas >= bounds.max_json_values - _MAX_EXTRA_BYTES:
            return [None] * len(bodies)
        fitting = [body.startswith(slot.before) and body.endswith(slot.after) for body in bodies]
        rows = self._rows([body for body, fits in zip(bodies, fitting, strict=True) if fits], slot, plan.single)
        if rows is None:
            return [None] * len(bodies)
        name = plan.single.name
        read = [DecodedRequest({name: rows[at : at + 1]}, 1) for at in range(len(rows))]
        if len(read) == len(bodies):
            return [*read]
        ordered = iter(read)
        return [next(ordered) if fits else None for fits in fitting]

    def encode_turn(
        self, requests: Sequence[DecodedRequest], outputs: Tensors, ids: Sequence[bytes], context: AnswerContext
    ) -> list[bytes] | None:
        """See TurnCodec; None if one asked for certain outputs, for binary, or sent an id of its own."""
        for request in requests:
            if request.rows != 1 or request.client_id is not None or request.outputs or request.binary:
                return None
        return encode_rows(plan_of(context.signature), context.model, context.version, ids, outputs)

    def _rows(self, bodies: list[bytes], slot: Slot, single: SinglePlan) -> Array | None:
        if not bodies or sum(map(len, bodies)) > _KEPT_PARSER_BYTES:
            return None
        parser = getattr(self._local, "parser", None) or self._new_parser()
        try:
            return decode_rows(bodies, slot, single, parser.parse)
        except (ValueError, TypeError, RuntimeError):
            self._new_parser()
            return None

    def _quick(
        self, body: bytes, plan: SignaturePlan, single: SinglePlan, bounds: CodecBounds
    ) -> DecodedRequest | None:
        """The request, or None where the careful path must look. A parser that met an error is thrown away, so
        that nothing of its document is left for the next caller."""
        if len(body) > _KEPT_PARSER_BYTES:
            parser = simdjson.Parser()
        else:
            parser = getattr(self._local, "parser", None) or self._new_parser()
        try:
            decoded = _read_quickly(parser.parse(body), body, plan, single, bounds)
            if decoded is not None:
                _learn(decoded, body, plan, single)
            return decoded
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ModelyardError):
            self._new_parser()
            return None

    def _new_parser(self) -> Any:
        self._local.parser = simdjson.Parser()
        return self._local.parser


def _learn(decoded: DecodedRequest, body: bytes, plan: SignaturePlan, single: SinglePlan) -> None:
    """Remembers the form of a usual request, if it is not the one that is remembered."""
    if decoded.rows != 1 or decoded.client_id is not None or decoded.outputs or decoded.binary or decoded.subject:
        return
    slot: Slot | None = plan.slot
    if slot is None or not (body.startswith(slot.before) and body.endswith(slot.after)):
        plan.strangers += 1
        if slot is not None and plan.strangers < _LEARN_AFTER:
            return
        plan.strangers = 0
        array = decoded.inputs[single.name]
        plan.slot = slot_of(body, array.shape, array.size, simdjson.Parser().parse) or slot


def _read_quickly(
    root: Any, body: bytes, plan: SignaturePlan, single: SinglePlan, bounds: CodecBounds
) -> DecodedRequest | None:
    inputs = root[b"inputs"]
    item = inputs[0]
    # four keys, all four there: none is there twice and none is unknown
    if len(inputs) != 1 or len(item) != 4 or item[b"name"] != single.name:
        return None
    if item[b"datatype"] != single.spec.datatype:
        return None
    shape = _quick_shape(item[b"shape"].as_list(), single.dims)
    if shape is None:
        return None
    array = quick_data(item[b"data"], shape, single)
    if array is None or array.size + _MAX_EXTRA_BYTES > bounds.max_json_values:
        return None
    brackets = body.count(b"[")
    rows = shape[0] if plan.batched else 0
    if len(root) == 1:
        if not is_natural(item[b"data"], shape, brackets):
            return None
        return DecodedRequest({single.name: array}, rows)
    extras = _quick_extras(root, plan, bounds)
    if extras is None or not is_natural(item[b"data"], shape, brackets - extras[0]):
        return None
    _, client_id, outputs, binary, subject = extras
    return DecodedRequest({single.name: array}, rows, client_id, outputs, binary, False, (), subject)


def _quick_shape(shape: list[Any], dims: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) != len(dims):
        return None
    for dim, want in zip(shape, dims, strict=True):
        if type(dim) is not int or dim <= 0 or dim > MAX_ELEMENTS or (want >= 0 and want != dim):
            return None
    return tuple(shape)


def quick_data(data: Any, shape: tuple[int, ...], single: SinglePlan) -> Array | None:
    """A parsed array's numbers as a tensor of this shape; None where the careful path must look, or an exception."""
    wide = np.frombuffer(data.as_buffer(of_type=single.kind), dtype=single.wide)
    if wide.size != math.prod(shape):
        return None
    narrow = narrowed(wide, single)
    return None if narrow is None else narrow.reshape(shape)


def is_natural(data: Any, shape: tuple[int, ...], brackets: int) -> bool:
    """Whether the data is flat, or nested exactly as its two-dimensional shape says.

    `brackets` counts every `[` of the body, less those beside the inputs: three are the inputs', the shape's and
    the data's own; each further one opens a list inside the data (or stands in a string: then the careful path
    looks).
    """
    if brackets == 3:
        return True
    if len(shape) != 2 or brackets != 3 + shape[0] or len(data) != shape[0]:
        return False
    width = shape[1]
    return all(len(row) == width for row in data)


def _quick_extras(
    root: Any, plan: SignaturePlan, bounds: CodecBounds
) -> tuple[int, str | None, tuple[OutputRequest, ...], bool, str | None] | None:
    """What stands beside the inputs: its `[` count, the id, the outputs, the binary default, the subject."""
    keys = set(root)
    if len(keys) != len(root) or not keys <= _KNOWN_KEYS:
        return None
    client_id = root[b"id"] if "id" in keys else None
    if client_id is not None and (type(client_id) is not str or "[" in client_id):
        return None
    outputs: tuple[OutputRequest, ...] = ()
    parameters: dict[str, Any] = {}
    brackets = 0
    if "outputs" in keys:
        text = root[b"outputs"].mini
        brackets += text.count(b"[")
        outputs = read_outputs(_small(text, bounds), plan)
    if "parameters" in keys:
        text = root[b"parameters"].mini
        brackets += text.count(b"[")
        parameters = read_object(_small(text, bounds), "parameters")
    binary = read_flag(parameters, "binary_data_output", "parameters.binary_data_output") or False
    return brackets, client_id, outputs, binary, read_subject(parameters.get("subject"), "parameters.subject")


def _small(text: bytes, bounds: CodecBounds) -> Any:
    if len(text) > _MAX_EXTRA_BYTES:
        raise ValueError("too large for the quick path")
    return parse(text, bounds)


def _header_length(text: bytes, most: int) -> int:
    if text.isdigit() and len(text) <= 10:
        length = int(text)
        if length <= most:
            return length
    raise InvalidRequestError(
        "header_length_invalid",
        "Inference-Header-Content-Length is not the length of a JSON part of this body.",
        field="Inference-Header-Content-Length",
        expected=f"a whole number from 0 to {most}",
        got=text[:32].decode("latin-1"),
        example="181",
    )


def _raw_binary(body: bytes, plan: SignaturePlan) -> DecodedRequest:
    """The body is one tensor, a batch of one; all outputs come back binary (Triton, "Raw Binary Request")."""
    if len(plan.inputs) != 1:
        _refuse_raw(plan, "a model with exactly one input", f"{len(plan.inputs)} inputs")
    (spec,) = plan.signature.inputs
    shape = list(spec.shape)
    if plan.batched:
        shape[0] = 1
    if spec.datatype == "BYTES":
        if math.prod(1 if dim < 0 else dim for dim in shape) != 1:
            _refuse_raw(plan, "an input of one element, as it is BYTES", list(spec.shape))
        array: Array = np.empty(1, dtype=np.object_)
        array[0] = body
        array = array.reshape([1 for _ in shape])
    else:
        array = _raw_numbers(body, plan, shape)
    return DecodedRequest({spec.name: array}, 1 if plan.batched else 0, binary=True, raw_binary=True)


def _raw_numbers(body: bytes, plan: SignaturePlan, shape: list[int]) -> Array:
    (spec,) = plan.signature.inputs
    free = [axis for axis, dim in enumerate(shape) if dim < 0]
    if len(free) > 1:
        _refuse_raw(plan, "at most one variable dimension beside the batch", list(spec.shape))
    if free:
        known = math.prod(dim for dim in shape if dim >= 0)
        size = known * DATATYPES[spec.datatype].itemsize
        if size == 0 or len(body) % size:
            bad_size("body", f"a multiple of {size} bytes for shape {list(spec.shape)} of {spec.datatype}", len(body))
        shape[free[0]] = len(body) // size
    return from_bytes(memoryview(body), spec.datatype, tuple(shape), "body")


def _refuse_raw(plan: SignaturePlan, expected: str, got: Any) -> NoReturn:
    raise InvalidRequestError(
        "header_length_invalid",
        "A raw binary request (Inference-Header-Content-Length: 0) does not fit this model.",
        field="Inference-Header-Content-Length",
        expected=expected,
        got=got,
        example=list(plan.inputs),
    )
