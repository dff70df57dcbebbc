"""Small ONNX models made by hand, each with one property that a test needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

from modelyard.core.types import Signature
from modelyard.models.manifest import Manifest


def model(
    op: str = "Identity",
    datatype: int = T.FLOAT,
    shape: list[Any] | None = None,
    *,
    opset: int = 18,
    ir: int = 10,
    name: str = "X",
    domain: str = "",
    tensors: list[Any] | None = None,
    inputs: list[str] | None = None,
) -> Any:
    """`Y = op(X)` over `shape` (default [N, 2])."""
    dims = shape if shape is not None else ["N", 2]
    node = helper.make_node(op, inputs or [name], ["Y"], domain=domain)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, datatype, dims)],
        [helper.make_tensor_value_info("Y", datatype, dims)],
        tensors or [],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def external(location: str, length: int | str = 16, offset: str = "0") -> Any:
    """`Y = X · W`, W in the file at `location`."""
    weights = helper.make_tensor("W", T.FLOAT, [2, 2], np.eye(2, dtype=np.float32).tobytes(), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = T.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": str(length)}.items():
        pair = weights.external_data.add()
        pair.key, pair.value = key, value
    return model("MatMul", tensors=[weights], inputs=["X", "W"])


def save(made: Any, folder: Path, name: str = "model.onnx") -> Path:
    """Writes it as it is, valid or not."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(made.SerializeToString())
    return folder


def manifest(signature: Signature, entry: str = "model.onnx") -> Manifest:
    """A manifest without files, for a load."""
    return Manifest("onnx", entry, (), signature)


__all__ = ["T", "external", "manifest", "model", "onnx", "save"]
