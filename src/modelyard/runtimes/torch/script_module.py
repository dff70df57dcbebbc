"""A TorchScript module inside its jail: loaded, and asked what it takes and gives.

TorchScript says neither shapes nor element types, so its owner does: in the manifest's `signature`, or by an example.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.core.errors import PublishError
from modelyard.core.types import DATATYPES, Array, Signature, TensorSpec
from modelyard.runtimes.refusals import check_spec, not_spoken, reason, unreadable
from modelyard.runtimes.torch.loaded import as_array, call, datatype_of
from modelyard.runtimes.torch.script_file import KIND

ROWS = (2, 3)
"""Batches that an output's varying dimension is told from."""


def load_module(path: Path) -> Any:
    """The module; PublishError."""
    import torch

    try:
        with warnings.catch_warnings():
            # PyTorch asks whoever loads TorchScript to export instead; that is its owner's choice.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def module_signature(module: Any, options: Mapping[str, Any]) -> Signature:
    """The inputs as `options` state them (`script.told`), with outputs found by two runs; PublishError."""
    inputs = _stated_inputs(options, _arguments(module))
    return Signature(inputs, _outputs(module, inputs))


def _arguments(module: Any) -> tuple[str, ...]:
    """Names of `forward`'s arguments, without those that it can do without."""
    arguments = module._c._get_method("forward").schema.arguments[1:]
    return tuple(argument.name for argument in arguments if not argument.has_default_value())


def _stated_inputs(options: Mapping[str, Any], arguments: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The inputs as the manifest's `signature` states them, or as its example has them, in the order of `forward`;
    PublishError("manifest_invalid") if it has neither, ("signature_conflict") if names differ."""
    found = {
        str(each["name"]): TensorSpec(str(each["name"]), str(each["datatype"]), tuple(each["shape"]))
        for each in options["inputs"]
    }
    if len(arguments) == 1 and list(found) == [""]:
        # MLflow's signatures give a single tensor no name.
        found = {arguments[0]: msgspec.structs.replace(found[""], name=arguments[0])}
    if not found:
        raise PublishError(
            "manifest_invalid",
            "TorchScript does not say what it takes: state `signature.inputs` with datatype and shape in "
            "`modelyard.json`, or give an example.",
            field="signature.inputs",
            expected=list(arguments),
            example={"signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}},
        )
    if set(found) != set(arguments):
        raise PublishError(
            "signature_conflict",
            "The inputs that are stated are not the arguments of `forward`.",
            field="signature.inputs",
            expected=list(arguments),
            got=list(found),
        )
    return tuple(_checked(f"inputs[{i}]", found[name]) for i, name in enumerate(arguments))


def _checked(place: str, spec: TensorSpec) -> TensorSpec:
    if spec.datatype not in DATATYPES or spec.datatype == "BYTES":
        raise not_spoken(f"{place}.datatype", spec.datatype[:40], "PyTorch takes numbers.")
    return check_spec(place, spec)


def _outputs(module: Any, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Names, types and shapes of what two runs give; a dimension in which they differ varies."""
    first, second = (call(module, [_ones(spec, rows) for spec in inputs], 1) for rows in ROWS)
    return tuple(
        check_spec(
            f"outputs[{i}]",
            TensorSpec(name, datatype_of(f"outputs[{i}]", tensor.dtype), _shape(as_array(tensor), as_array(other))),
        )
        for i, ((name, tensor), other) in enumerate(zip(first.items(), second.values(), strict=True))
    )


def _ones(spec: TensorSpec, rows: int) -> Array:
    shape = tuple(size if size != -1 else (rows if i == 0 else 1) for i, size in enumerate(spec.shape))
    return np.ones(shape, dtype=DATATYPES[spec.datatype])


def _shape(one: Array, other: Array) -> tuple[int, ...]:
    if one.ndim != other.ndim:
        raise not_spoken("outputs", "of a rank that varies", "Script a model whose outputs keep their rank.")
    return tuple(a if a == b else -1 for a, b in zip(one.shape, other.shape, strict=True))
