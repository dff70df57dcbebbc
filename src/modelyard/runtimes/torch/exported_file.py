"""Reading a `.pt2` archive as data: its graph as JSON, its weights as raw bytes.

PyTorch's own loader is not used: it unpickles the example inputs, hands texts of the file to `sympify` and to a
compiler of Python source, and loads compiled libraries. Source of the structure: PyTorch,
`torch/_export/serde/schema.py` (schema version 8) and `torch/export/pt2_archive`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ModelyardError
from modelyard.runtimes.refusals import not_spoken, reason, unreadable
from modelyard.runtimes.torch.archive import read_members

KIND = "PyTorch (.pt2)"
SCHEMA_MAJOR = 8
MODEL = "model"
"""The name under which `torch.export.save` stores the one program."""

Argument = Mapping[str, Any]
"""One of `{"as_tensor": {"name"}}`, `{"as_int": 1}`, …: the value by its kind."""


class Size(msgspec.Struct, frozen=True):
    """A number, or an expression in numbers that vary."""

    as_int: int | None = None
    as_expr: Any = None


class TensorMeta(msgspec.Struct, frozen=True):
    """What is known of a tensor."""

    dtype: int
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    storage_offset: Size


class NamedArgument(msgspec.Struct, frozen=True):
    """An argument of an operator; `kind` 2 is passed by name."""

    name: str
    arg: Argument
    kind: int | None = None


class Node(msgspec.Struct, frozen=True):
    """A call of an operator."""

    target: str
    inputs: tuple[NamedArgument, ...]
    outputs: tuple[Argument, ...]


class Graph(msgspec.Struct, frozen=True):
    """Calls in their order, and what each tensor looks like."""

    nodes: tuple[Node, ...]
    tensor_values: Mapping[str, TensorMeta]


class GraphSignature(msgspec.Struct, frozen=True):
    """What each input and output of the graph stands for."""

    input_specs: tuple[Mapping[str, Any], ...]
    output_specs: tuple[Mapping[str, Any], ...]


class GraphModule(msgspec.Struct, frozen=True):
    """The graph with its signature."""

    graph: Graph
    signature: GraphSignature


class SchemaVersion(msgspec.Struct, frozen=True):
    """Version of the structure."""

    major: int
    minor: int


class Program(msgspec.Struct, frozen=True):
    """What `models/model.json` holds."""

    graph_module: GraphModule
    schema_version: SchemaVersion
    torch_version: str = ""


class Payload(msgspec.Struct, frozen=True):
    """Where a tensor's bytes lie."""

    path_name: str
    use_pickle: bool
    tensor_meta: TensorMeta | None = None


class Payloads(msgspec.Struct, frozen=True):
    """Tensors by their names in the signature."""

    config: Mapping[str, Payload]


class Archive(msgspec.Struct, frozen=True):
    """A program, where its tensors lie, and the bytes of the members."""

    program: Program
    weights: Mapping[str, Payload]
    constants: Mapping[str, Payload]
    members: Mapping[str, bytes]


def read_archive(path: Path, max_bytes: int) -> Archive:
    """The archive, if it holds one program and nothing that is code; PublishError."""
    try:
        members = read_members(path, max_bytes)
        _check_members(members)
        program = msgspec.json.decode(members[f"models/{MODEL}.json"], type=Program)
        weights, constants = (
            msgspec.json.decode(members[f"data/{folder}/{MODEL}_{folder}_config.json"], type=Payloads).config
            for folder in ("weights", "constants")
        )
    except (ModelyardError, MemoryError):
        raise
    except KeyError as error:
        raise unreadable(KIND, f"it has no {str(error)[:80]}.") from None
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None
    if program.schema_version.major != SCHEMA_MAJOR:
        got = f"schema version {program.schema_version.major}.{program.schema_version.minor}"
        raise not_spoken("model", f"of {got}", f"Save it with a PyTorch of schema version {SCHEMA_MAJOR}.")
    for name, payload in (*weights.items(), *constants.items()):
        if payload.use_pickle or payload.tensor_meta is None:
            raise not_spoken(f"`{name[:80]}`", "stored as a pickle", "Export a model whose state is plain tensors.")
    return Archive(program, weights, constants, members)


def _check_members(members: Mapping[str, bytes]) -> None:
    if any(name.startswith("data/aotinductor/") for name in members):
        raise not_spoken("model", "a compiled library", "Save the program itself: `torch.export.save`.")
    programs = [name for name in members if name.startswith("models/") and name.endswith(".json")]
    if len(programs) != 1:
        raise not_spoken("model", f"an archive of {len(programs)} programs", "Save one program: `torch.export.save`.")
