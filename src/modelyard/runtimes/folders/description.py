"""What a folder says of its model, and how it completes what the model says of itself.

The model's own words go first, then the owner's in `modelyard.json`, then the folder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.codec.scoring.invocations import InvocationsCodec
from modelyard.core.errors import ModelyardError, PublishError
from modelyard.core.types import Array, CodecBounds, RawRequest, Signature, TensorSpec
from modelyard.models.report import Overrides, SignatureCompletion, TensorCompletion

MAX_EXAMPLE_ROWS = 8
"""Rows of a folder's example that are kept: it is tried at each load."""


class Description(msgspec.Struct, frozen=True):
    """`entry` is the file to serve, of the format `format` by the folder's word; its runtime checks it. `columns` name
    the features of the one matrix, `labels` the classes of the one output of scores. `inputs` state tensors, without
    a name where the folder has none. `example` is a scoring request (codec/scoring)."""

    format: str
    entry: str
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    inputs: tuple[TensorCompletion, ...] = ()
    example: bytes | None = None
    provenance: Mapping[str, str] = {}

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The runtime's options; where its owner states no inputs, those that the folder states."""
        owned = options.get("signature") or SignatureCompletion()
        if owned.inputs or options.get("example") or not self.inputs:
            return dict(options)
        return {**options, "signature": SignatureCompletion(self.inputs, owned.outputs)}

    def merge(self, overrides: Overrides, signature: Signature) -> Overrides:
        """The owner's words, completed by the folder's where they fit the model's signature;
        PublishError("signature_conflict") where both speak of different models."""
        owned = {each.name for each in overrides.signature.inputs}
        renamed = any(each.columns for each in overrides.signature.inputs)
        columns = overrides.columns if overrides.columns or renamed else self._columns(signature)
        stated = tuple(each for each in self._stated(signature) if each.name not in owned)
        outputs = overrides.signature.outputs
        if not overrides.labels and not outputs:
            outputs = tuple(self._labelled(signature))
        completed = SignatureCompletion((*overrides.signature.inputs, *stated), outputs)
        return msgspec.structs.replace(overrides, columns=columns, signature=completed)

    def _columns(self, signature: Signature) -> tuple[str, ...]:
        """The names for the one matrix. The model's own order of them stays; a model of several inputs must call them
        as the folder does."""
        if not self.columns:
            return ()
        if len(signature.inputs) == 1 and len(signature.inputs[0].shape) < 2:
            return ()
        several = len(signature.inputs) > 1
        known = tuple(spec.name for spec in signature.inputs) if several else signature.inputs[0].columns
        # LightGBM writes blanks as underscores.
        if tuple(name.replace(" ", "_") for name in self.columns) == known or not known:
            return () if several else self.columns
        if not set(known) <= set(self.columns):
            raise _conflict("signature.inputs", list(known[:50]), list(self.columns[:50]))
        return ()

    def _stated(self, signature: Signature) -> Iterator[TensorCompletion]:
        """The shapes that are stated, where the model leaves them open. A datatype is the model's affair: MLflow
        states that of the data that it saw."""
        known = {spec.name: spec for spec in signature.inputs}
        for each in self.inputs:
            spec = signature.inputs[0] if not each.name and len(known) == 1 else known.get(each.name)
            if spec is None:
                raise _conflict("signature.inputs", sorted(known)[:50], each.name or "a tensor without a name")
            if each.shape is not None:
                yield TensorCompletion(spec.name, shape=_narrowed(spec, each.shape))

    def _labelled(self, signature: Signature) -> Iterator[TensorCompletion]:
        """The labels, where one output has a number for each class and no names yet."""
        scores = [spec for spec in signature.outputs if _is_scores(spec, len(self.labels))]
        if self.labels and len(scores) == 1 and not scores[0].labels:
            shape = (scores[0].shape[0], len(self.labels))
            yield TensorCompletion(scores[0].name, shape=shape, labels=self.labels)

    def request(self, signature: Signature) -> Mapping[str, Any] | None:
        """The example as a request of the Open Inference Protocol; PublishError("example_failed") if it does not fit
        the signature."""
        if self.example is None:
            return None
        try:
            raw = RawRequest(self.example, b"application/json")
            decoded = InvocationsCodec().decode(raw, self._as_named_here(signature), CodecBounds())
        except ModelyardError as error:
            raise PublishError(
                "example_failed",
                f"The input example of the folder does not fit the model: {error.message}",
                field="example",
                reason=error.code,
                problem=dict(error.detail),
            ) from None
        kept = MAX_EXAMPLE_ROWS if decoded.rows else None
        return {"inputs": [_tensor(spec, decoded.inputs[spec.name][:kept]) for spec in signature.inputs]}

    def _as_named_here(self, signature: Signature) -> Signature:
        """With the folder's own names of columns, which its example has, whatever its owner calls them."""
        given, *others = signature.inputs
        if others or len(given.columns) != len(self.columns) or set(given.columns) == set(self.columns):
            return signature
        return Signature((msgspec.structs.replace(given, columns=self.columns),), signature.outputs)


def _narrowed(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stated shape, with the model's own dimension where it states none."""
    if len(shape) != len(spec.shape):
        return shape
    return tuple(own if stated == -1 else stated for stated, own in zip(shape, spec.shape, strict=True))


def _is_scores(spec: TensorSpec, classes: int) -> bool:
    return spec.datatype.startswith("FP") and len(spec.shape) == 2 and spec.shape[1] in (-1, classes)


def _tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    values = [value.decode() if isinstance(value, bytes) else value for value in np.ravel(array).tolist()]
    return {"name": spec.name, "shape": list(array.shape), "datatype": spec.datatype, "data": values}


def _conflict(field: str, expected: Any, got: Any) -> PublishError:
    return PublishError(
        "signature_conflict",
        f"What the folder says of `{field}` contradicts the model: {expected} was expected, {got} came.",
        field=field,
        expected=expected,
        got=got,
    )
