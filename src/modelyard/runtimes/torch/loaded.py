"""A PyTorch module in memory, with tensors as NumPy arrays around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.core.errors import ModelError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.runtimes.refusals import fitting, not_spoken, reason

DATATYPES: Mapping[str, str] = {
    "torch.bool": "BOOL", "torch.uint8": "UINT8", "torch.uint16": "UINT16", "torch.uint32": "UINT32",
    "torch.uint64": "UINT64", "torch.int8": "INT8", "torch.int16": "INT16", "torch.int32": "INT32",
    "torch.int64": "INT64", "torch.float16": "FP16", "torch.float32": "FP32", "torch.float64": "FP64",
}  # fmt: skip
"""PyTorch's element types by the protocol's names. bfloat16 has no NumPy type, text no tensor."""


class TorchModel:
    """core.types.LoadedModel over a callable that takes tensors in the order of the signature's inputs."""

    def __init__(self, module: Any, signature: Signature, threads: int) -> None:
        self.signature = signature
        self._module = module
        self._threads = threads
        self._inputs = tuple((spec.name, spec.shape) for spec in signature.inputs)
        self._names = tuple(spec.name for spec in signature.outputs)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port."""
        module = self._module
        if module is None:
            raise ModelError("model_failed", "The model is no longer in memory.")
        try:
            found = call(module, [fitting(name, shape, inputs[name]) for name, shape in self._inputs], self._threads)
            arrays = {name: as_array(tensor) for name, tensor in found.items()}
        except ModelError:
            raise
        except Exception as error:
            raise ModelError("model_failed", f"The model failed on this input: {reason(error)}") from None
        return {name: arrays[name] for name in outputs or self._names}

    def compact(self, inputs: Tensors) -> None:
        """See the port: PyTorch's allocator for the CPU keeps nothing."""

    def close(self) -> None:
        """Lets go of the module; a run that holds it ends first."""
        self._module = None


def call(module: Any, arrays: Sequence[Array], threads: int) -> dict[str, Any]:
    """The module's outputs by name: a dictionary's own, `output` for one tensor, `output_0` and on for several."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        found = module(*(torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays))
    if isinstance(found, Mapping):
        return {str(name): tensor for name, tensor in found.items()}
    if isinstance(found, tuple | list):
        return {f"output_{i}": tensor for i, tensor in enumerate(found)} if len(found) > 1 else {"output": found[0]}
    return {"output": found}


def datatype_of(place: str, dtype: Any) -> str:
    """The protocol's name of an element type; PublishError("format_not_allowed") for one that it does not have."""
    if str(dtype) not in DATATYPES:
        raise not_spoken(f"{place}.datatype", f"of type {dtype}", "Cast it to float32 in the model.")
    return DATATYPES[str(dtype)]


def as_array(tensor: Any) -> Array:
    """A tensor's elements, in memory of the processor."""
    array: Array = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return array.reshape(tuple(tensor.shape))
