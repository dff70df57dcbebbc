"""Reading a SavedModel as data: its signature, and the part of its graph that answers it.

TensorFlow's loader is not used: it runs every initialiser that the file names. Here the graph is cut down to what the
signature, the checkpoint and the tables need, every operator in it is looked up in the list of those that are allowed,
and TensorFlow gets that part alone, written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ModelyardError, PublishError
from modelyard.core.types import Signature, TensorSpec
from modelyard.runtimes.refusals import check_spec, not_spoken, reason, unreadable
from modelyard.runtimes.tensorflow.operators import is_allowed
from modelyard.runtimes.tensorflow.schema import message

KIND = "TensorFlow (SavedModel)"
SERVE, DEFAULT, INIT = "serve", "serving_default", "__saved_model_init_op"
VARIABLES = "variables/variables"
DATATYPES: Mapping[int, str] = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 9: "INT64", 10: "BOOL",
    17: "UINT16", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
"""TensorFlow's DataType to the protocol's names."""
KEPT_ATTRIBUTES = frozenset({"_lower_using_switch_merge", "_num_original_outputs", "_read_only_resource_inputs"})
"""Of the attributes with an underscore, which speak to the runtime: others choose kernels, devices and compilers."""
FUNCTIONS = "library"
"""The field of a GraphDef that holds its functions."""
DROPPED_ATTRIBUTES = frozenset({"config_proto", "config", "executor_type"})
LOOPS = frozenset({"While", "StatelessWhile"})
SHORT_NODES = 200
"""So many nodes may be run through in the caller's thread, whose stack each of them may make deeper."""


class Program(msgspec.Struct, frozen=True):
    """A checked part of a graph. `graph` is a GraphDef; `inputs` and `outputs` are the tensors of the signature's names
    in their order; `restore` is the operation that fills the variables from the path fed to `filename`, `initialise`
    the one that fills tables; "" where there is nothing to fill. `short`: few nodes, each of them run once."""

    signature: Signature
    graph: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    filename: str
    restore: str
    initialise: str
    version: str
    short: bool = False


def read_program(path: Path) -> Program:
    """The program of the one signature that serves; PublishError."""
    try:
        model = message("SavedModel").FromString(path.read_bytes())
        return _program(_serving(model.meta_graphs))
    except (ModelyardError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def _serving(graphs: Sequence[Any]) -> Any:
    if not graphs:
        raise PublishError("model_empty", "The model is empty: it holds no graph.", field="model")
    found = [graph for graph in graphs if SERVE in graph.meta_info_def.tags]
    if len(found) != 1:
        raise not_spoken("tags", f"{len(found)} graphs for `{SERVE}`", "Save the model with `tf.saved_model.save`.")
    return found[0]


def _program(meta: Any) -> Program:
    given = _signature_def(meta)
    nodes = {node.name: node for node in meta.graph_def.node}
    functions = {each.signature.name: each for each in functions_of(meta.graph_def)}
    inputs = tuple(given.inputs[name].name for name in sorted(given.inputs))
    outputs = tuple(given.outputs[name].name for name in sorted(given.outputs))
    serving = _Part(nodes, functions, (*inputs, *outputs), restoring=False)
    initialise = _init_operation(meta)
    tables = _Part(nodes, functions, [initialise] if initialise else [], restoring=False)
    keeps = any(node.op == "VarHandleOp" for node in serving.nodes.values())
    filename, restore = meta.saver_def.filename_tensor_name, meta.saver_def.restore_op_name
    restoring = _Part(nodes, functions, [restore, filename] if keeps else [], restoring=True)
    restoring.check_restores(filename)
    graph = _written((serving, tables, restoring))
    signature = Signature(
        tuple(_spec("inputs", name, given.inputs[name]) for name in sorted(given.inputs)),
        tuple(_spec("outputs", name, given.outputs[name]) for name in sorted(given.outputs)),
    )
    version = meta.meta_info_def.tensorflow_version[:40]
    if not keeps:
        filename = restore = ""
    return Program(signature, graph, inputs, outputs, filename, restore, initialise, version, serving.is_short())


def _signature_def(meta: Any) -> Any:
    """`serving_default`, or the only one."""
    served = {name: each for name, each in meta.signature_def.items() if not name.startswith("__saved_model")}
    if DEFAULT in served:
        return served[DEFAULT]
    if len(served) != 1:
        got = ", ".join(sorted(served))[:120] or "none"
        raise not_spoken("signatures", got, f"Save the model with one signature, or with `{DEFAULT}` among them.")
    return next(iter(served.values()))


def _init_operation(meta: Any) -> str:
    if INIT not in meta.signature_def:
        return ""
    (info,) = meta.signature_def[INIT].outputs.values()
    return str(info.name)


def _spec(place: str, name: str, info: Any) -> TensorSpec:
    where = f"{place}.{name[:60]}"
    if not info.name:
        raise not_spoken(where, "no plain tensor", "Save a signature of dense tensors.")
    if info.dtype not in DATATYPES:
        raise not_spoken(f"{where}.datatype", f"of element type {info.dtype}", "Cast it to float32 in the model.")
    if info.tensor_shape.unknown_rank:
        raise not_spoken(f"{where}.shape", "of no known rank", "State the shapes in the signature.")
    shape = tuple(int(dim.size) for dim in info.tensor_shape.dim)
    return check_spec(where, TensorSpec(name, DATATYPES[info.dtype], shape))


class _Part:
    """What some tensors and operations need: nodes, and functions that they call; PublishError if something of it is
    missing or not allowed."""

    def __init__(
        self, nodes: Mapping[str, Any], functions: Mapping[str, Any], roots: Iterable[str], restoring: bool
    ) -> None:
        self.nodes: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        self._restoring = restoring
        waiting = [_node_name(root) for root in roots]
        while waiting:
            name = waiting.pop()
            if name in self.nodes:
                continue
            if name not in nodes:
                raise unreadable(KIND, f"its graph has no `{name[:80]}`.")
            node = self.nodes[name] = nodes[name]
            waiting += map(_node_name, node.input)
            self._enter(node, functions)

    def _enter(self, node: Any, functions: Mapping[str, Any]) -> None:
        """Checks a node, and all functions that it leads to."""
        waiting = [node]
        while waiting:
            each = waiting.pop()
            if not is_allowed(each.op, self._restoring):
                raise not_spoken("operators", f"`{each.op[:60]}`", "Export the model without it.")
            for name in _called(each.attr):
                if name in self.functions:
                    continue
                if name not in functions:
                    raise unreadable(KIND, f"its graph has no function `{name[:80]}`.")
                self.functions[name] = functions[name]
                waiting += functions[name].node_def

    def is_short(self) -> bool:
        """Whether it has few nodes, no loops, and no function that is called twice."""
        inner = [node for each in self.functions.values() for node in each.node_def]
        nodes = [*self.nodes.values(), *inner]
        calls = sum(1 for node in nodes for _ in _called(node.attr))
        return len(nodes) <= SHORT_NODES and calls <= len(self.functions) and LOOPS.isdisjoint(n.op for n in nodes)

    def check_restores(self, filename: str) -> None:
        """Checkpoints are read from the path that is fed alone, not from one in the file."""
        fed = _node_name(filename)
        reading = {name for name, each in self.functions.items() if any(n.op == "RestoreV2" for n in each.node_def)}
        for node in self.nodes.values():
            direct = node.op == "RestoreV2" or not reading.isdisjoint(_called(node.attr))
            if direct and (not node.input or _node_name(node.input[0]) != fed):
                raise _elsewhere()
        for each in self.functions.values():
            first = each.signature.input_arg[0].name if each.signature.input_arg else ""
            for node in each.node_def:
                inner = not reading.isdisjoint(_called(node.attr))
                if inner or (node.op == "RestoreV2" and (not node.input or node.input[0] != first)):
                    raise _elsewhere()


def _elsewhere() -> PublishError:
    return not_spoken("operators", "`RestoreV2` of another checkpoint", "Save the model with `tf.saved_model.save`.")


def _node_name(tensor: str) -> str:
    """`^name` and `name:0` to `name`."""
    return tensor.removeprefix("^").partition(":")[0]


def functions_of(graph: Any) -> Any:
    """The functions of a GraphDef, to be read or added to."""
    return getattr(graph, FUNCTIONS).function


def _called(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Functions that a node's attributes name, also inside one another."""
    for value in attributes.values():
        calls = [*value.list.func, *([value.func] if value.func.name or value.func.attr else [])]
        for call in calls:
            yield call.name
            yield from _called(call.attr)


def _written(parts: Sequence[_Part]) -> bytes:
    """A graph of these parts, without words to devices, kernels and compilers."""
    graph = message("Graph")()
    nodes = {name: node for part in parts for name, node in part.nodes.items()}
    functions = {name: each for part in parts for name, each in part.functions.items()}
    graph.node.extend(nodes.values())
    kept = functions_of(graph)
    kept.extend(functions.values())
    for function in kept:
        _settle(function.node_def)
        for name in [name for name in function.attr if name.startswith("_")]:
            del function.attr[name]
    _settle(graph.node)
    return bytes(graph.SerializeToString())


def _settle(nodes: Iterable[Any]) -> None:
    for node in nodes:
        node.device = ""
        for name in list(node.attr):
            if name in DROPPED_ATTRIBUTES or (name.startswith("_") and name not in KEPT_ATTRIBUTES):
                del node.attr[name]
