"""Running an exported program: a list of calls of PyTorch's own operators, made one after the other.

Only operators of `aten` and `prims` are called, found by their names, and arithmetic on sizes; nothing of the file is
compiled, evaluated or unpickled.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modelyard.core.types import Signature, TensorSpec
from modelyard.runtimes.refusals import check_spec, not_spoken, unreadable
from modelyard.runtimes.torch.exported_file import KIND, Archive, Argument, Graph, Node, Payload, TensorMeta
from modelyard.runtimes.torch.guarded import guarded
from modelyard.runtimes.torch.loaded import datatype_of
from modelyard.runtimes.torch.operators import is_allowed

_TARGET = re.compile(r"torch\.ops\.(aten|prims)\.((?!__)\w+)\.((?!__)\w+)")
_SIZES: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in
       ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")},
    "math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": math.trunc,
    "torch.sym_max": max, "torch.sym_min": min, "torch.sym_float": float, "torch.sym_not": operator.not_,
    "torch.sym_sum": sum,
}  # fmt: skip
"""Arithmetic on sizes that vary."""
DTYPES: Mapping[int, str] = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
}  # fmt: skip
MEMORY_FORMATS: Mapping[int, str] = {
    1: "contiguous_format",
    2: "channels_last",
    3: "channels_last_3d",
    4: "preserve_format",
}
STRIDED = 7
PLAIN = frozenset({"as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists"})
KEYWORD = 2
ENUMERATED = re.compile(r"ScalarType|Layout|MemoryFormat")
CONSTANTS = frozenset({"as_scalar_type", "as_layout", "as_memory_format", "as_none"})
BY_NAME = {"as_sym_int": "as_int", "as_sym_bool": "as_bool", "as_sym_float": "as_float"}

Values = dict[str, Any]


class ExportedProgram:
    """A program with its weights; called with the tensors of its inputs in their order, gives a mapping by name."""

    def __init__(self, archive: Archive) -> None:
        graph = archive.program.graph_module.graph
        self.inputs, self._held = _inputs(archive)
        self.outputs = tuple(_outputs(archive))
        self._calls = tuple(_call(node) for node in graph.nodes)
        self._dead = _last_uses(graph, self._calls, self.outputs)

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """Runs every call; lets go of what no later one needs."""
        values: Values = {**self._held, **dict(zip(self.inputs, tensors, strict=True))}
        for call, dead in zip(self._calls, self._dead, strict=True):
            call.run(values)
            for name in dead:
                values.pop(name, None)
        return {name: values[name] for name in self.outputs}


class _Call:
    """One operator with its arguments; `reads` are the names that it needs."""

    def __init__(self, node: Node, target: Callable[..., Any]) -> None:
        self._target = target
        self._plain = [_value_of(each.arg) for each in node.inputs if each.kind != KEYWORD]
        self._named = {each.name: _value_of(each.arg) for each in node.inputs if each.kind == KEYWORD}
        self._gives = tuple(_given(output) for output in node.outputs)
        self.reads = frozenset(name for each in node.inputs for name in _names(each.arg))

    def run(self, values: Values) -> None:
        """Calls it, and notes what it gives."""
        plain = [value(values) for value in self._plain]
        result = self._target(*plain, **{name: value(values) for name, value in self._named.items()})
        if not self._gives:
            return
        several = len(self._gives) > 1
        for names, part in zip(self._gives, result if several else (result,), strict=True):
            values.update(zip(names, part, strict=True) if isinstance(names, tuple) else ((names, part),))


def signature_of(archive: Archive) -> Signature:
    """What the program takes and gives, as its graph states it; PublishError."""
    values = archive.program.graph_module.graph.tensor_values
    inputs, _ = _specs(archive)
    places = [("inputs", inputs), ("outputs", list(_outputs(archive)))]
    found = [
        tuple(_spec(f"{place}[{i}]", name, values.get(name)) for i, name in enumerate(names)) for place, names in places
    ]
    return Signature(found[0], found[1])


def _spec(place: str, name: str, meta: TensorMeta | None) -> TensorSpec:
    if meta is None:
        raise unreadable(KIND, f"it does not say what `{name[:80]}` is.")
    datatype = datatype_of(place, f"torch.{DTYPES.get(meta.dtype, 'unknown')}")
    shape = tuple(-1 if size.as_int is None else size.as_int for size in meta.sizes)
    return check_spec(place, TensorSpec(name, datatype, shape))


def _specs(archive: Archive) -> tuple[list[str], dict[str, tuple[str, Payload]]]:
    """Names of the inputs that a caller gives, and where the tensors of all others are stored."""
    given: list[str] = []
    held: dict[str, tuple[str, Payload]] = {}
    for spec in archive.program.graph_module.signature.input_specs:
        ((kind, about),) = spec.items()
        if kind == "user_input" and "as_tensor" in about["arg"]:
            given.append(about["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            held[about["arg"]["name"]] = _stored(archive, about[f"{kind}_name"])
        else:
            raise not_spoken("inputs", f"of the kind {kind[:40]}", "Export a model that takes tensors.")
    return given, held


def _stored(archive: Archive, name: str) -> tuple[str, Payload]:
    """The member that holds a tensor of this name."""
    for folder, payloads in (("weights", archive.weights), ("constants", archive.constants)):
        if name in payloads:
            return f"data/{folder}/{payloads[name].path_name}", payloads[name]
    raise unreadable(KIND, f"its tensor `{name[:80]}` is missing.")


def _inputs(archive: Archive) -> tuple[tuple[str, ...], Values]:
    given, held = _specs(archive)
    return tuple(given), {name: _tensor(archive, *stored) for name, stored in held.items()}


def _tensor(archive: Archive, member: str, payload: Payload) -> Any:
    """A stored tensor; `as_strided` refuses a view that reaches beyond the bytes."""
    import torch

    meta = payload.tensor_meta
    sizes = None if meta is None else [size.as_int for size in (*meta.sizes, *meta.strides, meta.storage_offset)]
    if meta is None or sizes is None or None in sizes or member not in archive.members:
        raise unreadable(KIND, f"its tensor `{payload.path_name[:80]}` is missing.")
    dtype = getattr(torch, DTYPES.get(meta.dtype, ""), None)
    if dtype is None:
        raise not_spoken("weights", f"of element type {meta.dtype}", "Store them as float32.")
    content = archive.members[member]
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.zeros(0, dtype=dtype)
    rank = len(meta.sizes)
    return torch.as_strided(flat, sizes[:rank], sizes[rank:-1], sizes[-1])


def _outputs(archive: Archive) -> Iterator[str]:
    for spec in archive.program.graph_module.signature.output_specs:
        ((kind, about),) = spec.items()
        if kind != "user_output" or "as_tensor" not in about["arg"]:
            what = "that change what the model holds" if "mutation" in kind else f"of the kind {kind[:40]}"
            raise not_spoken("outputs", what, "Export a model in `eval()` that gives tensors.")
        yield about["arg"]["as_tensor"]["name"]


def _call(node: Node) -> _Call:
    if node.target in _SIZES:
        return _Call(node, _SIZES[node.target])
    match = _TARGET.fullmatch(node.target)
    if match is None or not is_allowed(*match.groups()):
        raise not_spoken("operators", f"`{node.target[:80]}`", "Export without it.")
    import torch

    namespace, name, overload = match.groups()
    found = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise not_spoken(
            "operators", f"`{node.target[:80]}`", "This PyTorch does not have it; export it with this one."
        )
    _check_enumerations(node, found)
    return _Call(node, guarded(name, found))


def _check_enumerations(node: Node, operator_: Any) -> None:
    """Datatypes, layouts and the like are numbers to PyTorch, which believes them: they come as what they are."""
    wanted = operator_._schema.arguments
    plain = [each for each in node.inputs if each.kind != KEYWORD]
    named = {each.name: each for each in node.inputs if each.kind == KEYWORD}
    given = {argument.name: each for argument, each in zip(wanted, plain, strict=False)} | named
    for argument in wanted:
        told = set(given[argument.name].arg) if argument.name in given else set()
        if ENUMERATED.search(str(argument.real_type)) and not told <= CONSTANTS:
            raise not_spoken(
                "operators", f"`{node.target[:80]}` with a number for `{argument.name}`", "Export it anew."
            )


def _value_of(argument: Argument) -> Callable[[Values], Any]:
    """How the argument is found when the call is made."""
    ((kind, about),) = argument.items()
    if kind in PLAIN:
        return lambda values: about
    if kind == "as_none":
        return lambda values: None
    if kind in ("as_tensor", "as_optional_tensor", *BY_NAME):
        return _reference(about if kind != "as_tensor" else {"as_name": about["name"]})
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
        parts = [_reference({"as_name": each["name"]} if "name" in each else each) for each in about]
        return lambda values: [part(values) for part in parts]
    constant = _constant(kind, about)
    return lambda values: constant


def _reference(about: Mapping[str, Any]) -> Callable[[Values], Any]:
    """A value by its name, or a plain one in its place."""
    ((kind, value),) = about.items()
    if kind == "as_tensor":
        value = value["name"]
    if kind in ("as_name", "as_tensor"):
        return operator.itemgetter(value)
    return lambda values: None if kind == "as_none" else value


def _constant(kind: str, about: Any) -> Any:
    import torch

    if kind == "as_scalar_type" and about in DTYPES:
        return getattr(torch, DTYPES[about])
    if kind == "as_memory_format" and about in MEMORY_FORMATS:
        return getattr(torch, MEMORY_FORMATS[about])
    if kind == "as_layout" and about == STRIDED:
        return torch.strided
    if kind == "as_device" and about["type"] == "cpu":
        return torch.device("cpu")
    raise not_spoken("operators", f"with an argument of the kind {kind[:40]}", "Export it for the CPU, without it.")


def _names(argument: Argument) -> Iterator[str]:
    """Names of values that an argument refers to."""
    for kind, about in argument.items():
        for each in about if isinstance(about, list) else (about,):
            if kind not in PLAIN and isinstance(each, dict):
                named = each.get("as_tensor") or each
                yield from (named[key] for key in ("name", "as_name") if key in named)


def _given(output: Argument) -> str | tuple[str, ...]:
    ((kind, about),) = output.items()
    if kind == "as_tensors":
        return tuple(each["name"] for each in about)
    name = about.get("name", about.get("as_name")) if isinstance(about, dict) else None
    if name is None:
        raise not_spoken("operators", f"that give a value of the kind {kind[:40]}", "Export without them.")
    return str(name)


def _last_uses(graph: Graph, calls: Sequence[_Call], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """After each call, the names of intermediate values that nothing needs any more."""
    made = {name for node in graph.nodes for output in node.outputs for name in _names(output)}
    seen = set(outputs)
    found: list[tuple[str, ...]] = []
    for call in reversed(calls):
        last = tuple(name for name in call.reads if name in made and name not in seen)
        seen.update(last)
        found.append(last)
    return tuple(reversed(found))
