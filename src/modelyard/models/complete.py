"""The signature that the model states, completed by what its owner adds (names of columns and classes, shapes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.core.errors import PublishError
from modelyard.core.redaction import Rule, rules_of
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.report import Overrides, TensorCompletion


def complete(signature: Signature, overrides: Overrides) -> Signature:
    """The completed signature; PublishError("signature_conflict") where the owner contradicts the model."""
    inputs = _tensors("inputs", signature.inputs, overrides.signature.inputs)
    outputs = _tensors("outputs", signature.outputs, overrides.signature.outputs)
    if overrides.columns:
        at = _only("columns", [i for i, spec in enumerate(inputs) if len(spec.shape) >= 2])
        inputs[at] = _named(f"inputs[{at}]", inputs[at], columns=overrides.columns)
    if overrides.labels:
        at = _only("labels", [i for i, spec in enumerate(outputs) if _scores(spec, len(overrides.labels))])
        outputs[at] = _named(f"outputs[{at}]", outputs[at], labels=overrides.labels)
    return Signature(tuple(inputs), tuple(outputs))


def check_redaction(signature: Signature, redaction: tuple[str, ...] | Mapping[str, str]) -> None:
    """PublishError("manifest_invalid") if a redacted name is neither an input nor a column, or a rule is none."""
    known = {spec.name for spec in signature.inputs} | {name for spec in signature.inputs for name in spec.columns}
    for name, rule in rules_of(redaction).items():
        if rule not in set(Rule):
            raise PublishError(
                "manifest_invalid",
                f"`redaction` gives `{name}` the rule `{rule[:40]}`, which is none.",
                field=f"redaction.{name}",
                expected=" ".join(Rule),
                got=rule[:40],
                example=Rule.HASH.value,
            )
        if name not in known:
            raise PublishError(
                "manifest_invalid",
                f"`redaction` names `{name}`, which is no input and no column of the model.",
                field="redaction",
                expected=sorted(known)[:50],
                got=name,
            )


def _tensors(place: str, specs: tuple[TensorSpec, ...], completions: tuple[TensorCompletion, ...]) -> list[TensorSpec]:
    at = {spec.name: i for i, spec in enumerate(specs)}
    result = list(specs)
    for completion in completions:
        if completion.name not in at:
            raise _conflict(f"signature.{place}", sorted(at), completion.name)
        i = at[completion.name]
        result[i] = _merge(f"{place}[{i}]", result[i], completion)
    return result


def _merge(place: str, spec: TensorSpec, completion: TensorCompletion) -> TensorSpec:
    if completion.datatype not in (None, spec.datatype):
        raise _conflict(f"{place}.datatype", spec.datatype, completion.datatype)
    shape = completion.shape
    if shape is not None:
        pairs = zip(shape, spec.shape, strict=False)
        if len(shape) != len(spec.shape) or any(ours not in (theirs, -1) for theirs, ours in pairs):
            raise _conflict(f"{place}.shape", list(spec.shape), list(shape))
        spec = msgspec.structs.replace(spec, shape=shape)
    return _named(place, spec, columns=completion.columns, labels=completion.labels)


def _named(
    place: str, spec: TensorSpec, columns: tuple[str, ...] | None = None, labels: tuple[str, ...] | None = None
) -> TensorSpec:
    for field, names in (("columns", columns), ("labels", labels)):
        if names is None:
            continue
        size = spec.shape[-1] if spec.shape else 0
        if size not in (-1, len(names)):
            raise _conflict(f"{place}.{field}", f"{size} names", f"{len(names)} names")
        if len(set(names)) != len(names):
            raise _conflict(f"{place}.{field}", "names that differ", "a name twice")
    changes: dict[str, Any] = {}
    if columns is not None:
        changes["columns"] = columns
        if len(spec.shape) >= 2:
            changes["shape"] = (*spec.shape[:-1], len(columns))
    if labels is not None:
        changes["labels"] = labels
    return msgspec.structs.replace(spec, **changes) if changes else spec


def _scores(spec: TensorSpec, classes: int) -> bool:
    """Whether an output may hold one number per class."""
    return spec.datatype.startswith("FP") and len(spec.shape) == 2 and spec.shape[1] in (classes, -1)


def _only(field: str, places: list[int]) -> int:
    if len(places) != 1:
        raise _conflict(field, "one tensor that they can belong to", f"{len(places)}; name it under `signature`")
    return places[0]


def _conflict(field: str, expected: Any, got: Any) -> PublishError:
    return PublishError(
        "signature_conflict",
        f"`{field}` of the manifest contradicts the model: {expected} was expected, {got} came.",
        field=field,
        expected=expected,
        got=got,
    )
