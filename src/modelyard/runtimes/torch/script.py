"""TorchScript archives (`torch.jit.save`).

TorchScript says neither shapes nor element types, so its owner does: in the manifest's `signature`, or by an example.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.core.errors import ModelyardError, PublishError
from modelyard.core.types import DATATYPES, Array, Signature, TensorSpec
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.models.report import SignatureCompletion
from modelyard.runtimes.refusals import check_spec, extra_missing, nonempty, not_spoken, only_one, reason, unreadable
from modelyard.runtimes.torch.archive import kind_of, write_members
from modelyard.runtimes.torch.loaded import TorchModel, as_array, call, datatype_of
from modelyard.runtimes.torch.script_file import KIND, checked_members

ROWS = (2, 3)
"""Batches that an output's varying dimension is told from."""
MAX_BYTES = 8 * 1024**3


class TorchscriptRuntime:
    """The port `models.ports.Runtime` for TorchScript."""

    format = "torchscript"

    def detect(self, folder: Path) -> str | None:
        """The one TorchScript archive, cut off or not; a checkpoint counts too, so that its refusal can say so."""
        return only_one("PyTorch", folder, lambda path: kind_of(path) in ("script", "checkpoint"))

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """The owner's signature, with outputs found by a run; PublishError."""
        path = nonempty(folder / entry)
        if kind_of(path) == "checkpoint":
            raise PublishError(
                "format_not_allowed",
                f"`{path.name}` is a checkpoint of `torch.save`, a pickle: loading it would run its code. Save the "
                "model with `torch.export.save` or `torch.jit.save`.",
                field="model",
                got="pickle",
            )
        module = _load(path, options)
        try:
            inputs = stated_inputs(options, _arguments(module))
            return Inspection(self.format, entry, Signature(inputs, _outputs(module, inputs)), {}, ".pt")
        except ModelyardError:
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> TorchModel:
        """The module with `options["threads"]` threads; PublishError."""
        module = _load(nonempty(folder / manifest.entry), options)
        return TorchModel(module, manifest.signature, int(options.get("threads", 1)))


def _load(path: Path, options: Mapping[str, Any]) -> Any:
    try:
        import torch
    except ImportError:
        raise extra_missing("PyTorch", "torch") from None
    members = checked_members(path, int(options.get("max_version_bytes", MAX_BYTES)))
    try:
        with warnings.catch_warnings():
            # PyTorch asks whoever loads TorchScript to export instead; that is its owner's choice.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(write_members(members), map_location="cpu").eval()
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def _arguments(module: Any) -> tuple[str, ...]:
    """Names of `forward`'s arguments, without those that it can do without."""
    arguments = module._c._get_method("forward").schema.arguments[1:]
    return tuple(argument.name for argument in arguments if not argument.has_default_value())


def stated_inputs(options: Mapping[str, Any], arguments: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The inputs as the manifest's `signature` states them, or as its example has them, in the order of `forward`;
    PublishError("manifest_invalid") if it has neither, ("signature_conflict") if names differ."""
    completion = options.get("signature") or SignatureCompletion()
    stated = {
        each.name: TensorSpec(each.name, each.datatype, tuple(each.shape))
        for each in completion.inputs
        if each.datatype is not None and each.shape is not None
    }
    example = (options.get("example") or {}).get("inputs", ())
    found = stated or {each["name"]: _like(each) for each in example}
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


def _like(tensor: Mapping[str, Any]) -> TensorSpec:
    """The spec of an example's tensor: its first dimension is the batch."""
    return TensorSpec(str(tensor["name"]), str(tensor["datatype"]), (-1, *(int(size) for size in tensor["shape"][1:])))


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
