"""Reading an ONNX file without running it: what it takes and gives, where its data lies, who made it.

Runs in the publish check's process only; the server never parses a protobuf with Python. Source of the structure:
onnx.proto of the ONNX project (ModelProto, GraphProto, "External Data").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from modelyard.core.errors import PublishError
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import check_spec, not_spoken, unreadable

DATATYPES: Mapping[int, str] = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
}
"""TensorProto.DataType to the protocol's names."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Operator sets that ONNX Runtime itself brings."""

_NUMBER = re.compile(r"[0-9]{1,18}")
MAX_DEPTH = 32
"""Deepest nesting of graphs in graphs."""
MAX_TEXT_CHARS = 200


def inspect_onnx(folder: Path, entry: str) -> Inspection:
    """What the file says of itself; PublishError."""
    model = _parse(folder / entry)
    graph = model.graph
    if not graph.node or not graph.output:
        raise PublishError("model_empty", "The model is empty: its graph computes nothing.", field="model")
    _check_opsets(model)
    _check_operators(model)
    for tensor in _tensors(model):
        if tensor.data_location == 1:
            _check_external(folder, Path(entry).parent, tensor)
    return Inspection("onnx", entry, _signature(model), _provenance(model))


def _parse(path: Path) -> Any:
    import onnx

    if path.stat().st_size == 0:
        raise PublishError("model_empty", "The model is empty: it holds no bytes.", field="model", got="0 bytes")
    try:
        return onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except MemoryError:
        raise
    except Exception:
        raise unreadable("ONNX", "it is cut off or damaged.", got=f"{path.stat().st_size} bytes") from None


def _check_opsets(model: Any) -> None:
    """Versions that cannot exist; what this ONNX Runtime supports, its loader says."""
    if not model.opset_import:
        raise _opset("an operator set", "none")
    for opset in model.opset_import:
        if opset.version < 1:
            raise _opset(f"{opset.domain or 'ai.onnx'} 1 or later", opset.version)


def _opset(expected: Any, got: Any) -> PublishError:
    return PublishError(
        "opset_unsupported",
        f"The model uses operator set {got}; {expected} is what can be served.",
        field="opset",
        expected=expected,
        got=got,
    )


def _check_operators(model: Any) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
            raise not_spoken(
                "operators", f"the custom operator {node.domain[:60]!r}:{node.op_type[:60]!r}", "Export without it."
            )


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, the functions, and every graph inside their nodes."""
    waiting = [(model.graph, 0), *((function, 0) for function in model.functions)]
    while waiting:
        graph, depth = waiting.pop()
        yield graph
        if depth > MAX_DEPTH:
            raise unreadable("ONNX", f"graphs are nested deeper than {MAX_DEPTH}.")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append((attribute.g, depth + 1))
                waiting += [(inner, depth + 1) for inner in attribute.graphs]


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that may point outside the file."""
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _check_external(folder: Path, base: Path, tensor: Any) -> None:
    """External data lies in a regular file inside the version's folder, long enough for the tensor."""
    stated = {pair.key: pair.value for pair in tensor.external_data}
    location = stated.get("location", "")
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or any(mark in location for mark in "\\\0*"):
        raise _outside(location)  # by a star ONNX Runtime knows addresses in memory
    target = folder / base / location
    if any(part.is_symlink() for part in (target, *target.parents) if part != folder and folder in part.parents):
        raise _outside(location)
    if not target.resolve().is_relative_to(folder.resolve()):
        raise _outside(location)
    if not target.is_file():
        raise unreadable("ONNX", f"its external data `{location[:80]}` is missing.", got=location[:80])
    offset, length = (stated.get(name, "0") for name in ("offset", "length"))
    if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
        raise unreadable("ONNX", f"the place of its external data `{location[:80]}` is no number.", got=offset[:20])
    if int(offset) + int(length) > target.stat().st_size:
        raise unreadable("ONNX", f"its external data `{location[:80]}` is cut off.", got=target.stat().st_size)


def _outside(location: str) -> PublishError:
    return PublishError(
        "external_data_outside",
        "The model's external data lies outside its folder.",
        field="external_data.location",
        expected="a file inside the model's folder",
        got=location[:200],
        example="weights.bin",
    )


def _signature(model: Any) -> Signature:
    graph = model.graph
    held = {tensor.name for tensor in graph.initializer}
    inputs = [_spec(f"inputs[{i}]", value) for i, value in enumerate(v for v in graph.input if v.name not in held)]
    labels = _class_labels(model)
    outputs = []
    for i, value in enumerate(graph.output):
        outputs.append(_output(f"outputs[{i}]", value, labels, _zipmap_labels(model, value.name)))
    properties = {pair.key: pair.value for pair in model.metadata_props}
    columns = _names(properties, "columns", "feature_names")
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] in (-1, len(columns)) and columns:
        inputs[0] = msgspec.structs.replace(inputs[0], shape=(inputs[0].shape[0], len(columns)), columns=columns)
    return Signature(tuple(inputs), tuple(outputs))


def _spec(place: str, value: Any) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        got = (kind or "untyped").removesuffix("_type")
        raise not_spoken(place, f"a {got}, not a tensor", "Export the model with tensors only.")
    tensor = value.type.tensor_type
    if tensor.elem_type not in DATATYPES:
        raise not_spoken(f"{place}.datatype", f"of element type {tensor.elem_type}", "Cast it to FP32 in the model.")
    shape = tuple(d.dim_value if d.WhichOneof("value") == "dim_value" else -1 for d in tensor.shape.dim)
    if not tensor.HasField("shape"):
        shape = (-1,)
    # Exporters write 0 or a negative number for a dimension they do not know, in the batch's place.
    if shape and shape[0] == 0:
        shape = (-1, *shape[1:])
    return check_spec(place, TensorSpec(value.name, DATATYPES[tensor.elem_type], shape))


def _output(place: str, value: Any, labels: tuple[str, ...], mapped: tuple[str, ...]) -> TensorSpec:
    """An output; a ZipMap's sequence of maps is served as a matrix with one column per class (runtimes/onnx.py)."""
    if value.type.WhichOneof("value") == "sequence_type" and mapped:
        return check_spec(place, TensorSpec(value.name, "FP32", (-1, len(mapped)), labels=mapped))
    spec = _spec(place, value)
    scores = spec.datatype.startswith("FP") and len(spec.shape) == 2 and spec.shape[1] in (-1, len(labels))
    if scores and labels:
        return msgspec.structs.replace(spec, shape=(spec.shape[0], len(labels)), labels=labels)
    return spec


def _class_labels(model: Any) -> tuple[str, ...]:
    """Names of the classes: the model's metadata (`labels` or `classes`, a JSON list), else its one classifier."""
    properties = {pair.key: pair.value for pair in model.metadata_props}
    found = {_node_labels(node) for node in model.graph.node if "Classifier" in node.op_type} - {()}
    return _names(properties, "labels", "classes") or (found.pop() if len(found) == 1 else ())


def _zipmap_labels(model: Any, output: str) -> tuple[str, ...]:
    """Keys of a ZipMap's maps in the order in which ONNX Runtime gives them out: a sorted map."""
    for node in model.graph.node:
        if node.op_type == "ZipMap" and output in node.output:
            labels = _node_labels(node)
            numbers = any(attribute.name == "classlabels_int64s" for attribute in node.attribute)
            return tuple(sorted(labels, key=int)) if numbers else tuple(sorted(labels, key=str.encode))
    return ()


def _node_labels(node: Any) -> tuple[str, ...]:
    for attribute in node.attribute:
        if attribute.name.startswith("classlabels") and attribute.ints:
            return tuple(str(label) for label in attribute.ints)
        if attribute.name.startswith("classlabels") and attribute.strings:
            return tuple(label.decode("utf-8", "replace") for label in attribute.strings)
    return ()


def _names(properties: Mapping[str, str], *keys: str) -> tuple[str, ...]:
    for key in keys:
        try:
            names = json.loads(properties.get(key, ""))
        except ValueError:
            continue
        if isinstance(names, list) and names and all(isinstance(name, str | int) for name in names):
            return tuple(str(name) for name in names)
    return ()


def _provenance(model: Any) -> dict[str, str]:
    opsets = sorted({f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opset_import})
    said = {
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": str(model.ir_version),
        "opset": ", ".join(opsets),
        "graph": model.graph.name,
        "model_version": str(model.model_version) if model.model_version else "",
    }
    return {name: text[:MAX_TEXT_CHARS] for name, text in said.items() if text}
