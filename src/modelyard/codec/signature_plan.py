"""What is worked out once per signature, so that a request only looks it up."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from modelyard.core.types import DATATYPES, Signature, TensorSpec

_MAX_PLANS = 1024
_MAX_CACHED = 256
_NUMERIC = re.compile(r"\s*[-+.]?[0-9]")  # columns whose names could stand in a row of numbers


class OutputPlan:
    """The constant bytes of one output in an answer of the Open Inference Protocol, and what else it is asked for."""

    __slots__ = ("batched", "datatype", "dtype", "labels", "name", "opening", "opening_of_classes")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.datatype = spec.datatype
        self.dtype = DATATYPES[spec.datatype]
        self.labels = spec.labels
        self.batched = spec.shape[:1] == (-1,)
        self.opening = _opening(spec.name, spec.datatype)
        self.opening_of_classes = _opening(spec.name, "BYTES")


def _opening(name: str, datatype: str) -> bytes:
    return b'{"name":' + orjson.dumps(name) + b',"datatype":"' + datatype.encode() + b'","shape":'


class SinglePlan:
    """How the only input of a numeric model is read without Python objects.

    `kind` is the buffer type that simdjson fills, `wide` its NumPy type, `low` and `high` the range that the
    narrower integer types must keep (None where every value of the wide type fits).
    """

    __slots__ = ("dims", "dtype", "high", "kind", "low", "name", "spec", "wide")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.dims = spec.shape
        self.dtype = DATATYPES[spec.datatype]
        floating = self.dtype.kind == "f"
        self.kind = "d" if floating else "u" if spec.datatype == "UINT64" else "i"
        self.wide = np.dtype({"d": np.float64, "u": np.uint64, "i": np.int64}[self.kind])
        narrow = not floating and self.dtype != self.wide
        self.low = int(np.iinfo(self.dtype).min) if narrow else None
        self.high = int(np.iinfo(self.dtype).max) if narrow else None


class SignaturePlan:
    """Everything about one signature that decoding and encoding ask for again and again."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.inputs = {spec.name: spec for spec in signature.inputs}
        self.outputs = {spec.name: OutputPlan(spec) for spec in signature.outputs}
        self.all_outputs = tuple(self.outputs.values())
        self.fp16_outputs = frozenset(spec.name for spec in signature.outputs if spec.datatype == "FP16")
        self.batched = bool(signature.inputs) and all(spec.shape[:1] == (-1,) for spec in signature.inputs)
        self.single = self._single()
        self.columns = self._columns()
        self.column_names = frozenset(self.columns)
        self.numeric_names = any(_NUMERIC.match(name) for name in self.columns or self.inputs)
        self.envelopes: dict[bytes, Any] = {}
        self.orders: dict[bytes, int] = {}
        self.slot: Any = None
        """The form of usual requests of one row (oip_turn.Slot)."""
        self.forms: dict[Any, Any] = {}
        """The forms of other surfaces' usual requests of one row (together.forms.Forms)."""
        self.strangers = self.misses = 0
        self.column_keys = [orjson.dumps(name) + b":" for name in self.single.spec.columns] if self.single else []
        self.answer_form: Any = None
        """The form of answers of one row (oip_answer.answer_as_text), once one was looked at."""
        self.output_keys = [orjson.dumps(output.name) + b":" for output in self.all_outputs]
        self.templates: dict[tuple[Any, ...], bytes] = {}
        self._heads: dict[tuple[str, str], bytes] = {}

    def _single(self) -> SinglePlan | None:
        if len(self.inputs) != 1 or self.fp16_outputs:
            return None
        (spec,) = self.signature.inputs
        return SinglePlan(spec) if spec.datatype not in ("BYTES", "BOOL", "FP16") and spec.shape else None

    def _columns(self) -> tuple[str, ...]:
        """The columns of the model's only input, if each element of a row has its name; else none."""
        if len(self.inputs) != 1:
            return ()
        (spec,) = self.signature.inputs
        fitting = len(spec.shape) == 2 and spec.shape[1] in (-1, len(spec.columns)) and spec.shape[0] in (-1, 1)
        return spec.columns if fitting else ()

    def head(self, model: str, version: str) -> bytes:
        """An answer's first bytes, up to its id."""
        head = self._heads.get((model, version))
        if head is None:
            named = orjson.dumps({"model_name": model, "model_version": version})
            head = named[:-1] + b',"id":'
            remember(self._heads, (model, version), head)
        return head


def remember(cache: dict[Any, Any], key: Any, value: Any, most: int = _MAX_CACHED) -> None:
    """Keeps the value; a full cache is emptied first, so that no caller can make it grow."""
    if len(cache) >= most:
        cache.clear()
    cache[key] = value


_plans: dict[int, SignaturePlan] = {}


def plan_of(signature: Signature) -> SignaturePlan:
    """The signature's plan. A plan holds its signature, so an identity cannot be taken over while it is cached."""
    plan = _plans.get(id(signature))
    if plan is None:
        plan = SignaturePlan(signature)
        remember(_plans, id(signature), plan, _MAX_PLANS)
    return plan
