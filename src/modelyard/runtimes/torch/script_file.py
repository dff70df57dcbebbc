"""Looking at TorchScript before PyTorch does: its source is text in the archive, and names what it calls.

TorchScript is a language of its own that cannot reach Python, but it has operators that write files, and a method
`__setstate__` runs while a module is loaded. So what the source names is checked before anything of it is loaded.
Source of the format: PyTorch, `torch/csrc/jit/docs/serialization.md`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelyard.core.errors import ModelyardError
from modelyard.runtimes.refusals import not_spoken, reason, unreadable
from modelyard.runtimes.torch.archive import read_members

KIND = "TorchScript"
NAMESPACES = frozenset({"aten", "prims", "prim"})
"""Others are of libraries, of other devices, of PyTorch's own tests, or speak with other machines."""
REACHING = frozenset({
    "save", "load", "from_file", "open", "print", "_print", "Print", "rpc_sync", "rpc_async", "rpc_remote",
})  # fmt: skip
"""They read or write files, speak with other machines, or print what a caller sent."""
UNCHECKED = frozenset({
    "_unsafe_index", "_unsafe_index_put", "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate",
    "_sparse_coo_tensor_unsafe", "_sparse_compressed_tensor_unsafe", "_sparse_csr_tensor_unsafe",
    "_sparse_csc_tensor_unsafe", "_sparse_bsr_tensor_unsafe", "_sparse_bsc_tensor_unsafe",
    "set_", "set_data", "resize", "resize_", "resize_as", "resize_as_", "_resize_output", "_resize_output_",
    "_nested_view_from_buffer", "_nested_view_from_buffer_copy", "_nested_view_from_jagged",
    "_nested_view_from_jagged_copy", "data_ptr",
})  # fmt: skip
"""They trust their arguments where others look, or give memory out that nothing was written to."""
_WORST = re.compile(rb"\b(?:from_file|rpc_(?:sync|async|remote))\b|\bsave[\s\\]*\(|[\"']save[\"']")
OPERATORS = "ops"
"""The name under which the source reaches operators of other namespaces: `ops.quantized.linear(…)`."""


def checked_members(path: Path, max_bytes: int) -> Mapping[str, bytes]:
    """The members of the archive; PublishError if the source cannot be read, or names an operator that a model may not
    call."""
    try:
        members = read_members(path, max_bytes)
        for name, content in members.items():
            if name.startswith("code/") and name.endswith(".py"):
                _check_text(content)
                _check(ast.parse(content.decode()))
        return members
    except (ModelyardError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def _check_text(content: bytes) -> None:
    """The worst of them also where Python's grammar and TorchScript's could read a line in two ways."""
    if found := _WORST.search(content):
        raise not_spoken("operators", f"`{found[0].decode()[:40]}`", "Script the model without it.")


def _check(tree: ast.AST) -> None:
    for name in _named(tree):
        if name in REACHING or name in UNCHECKED:
            raise not_spoken("operators", f"`{name}`", "Script the model without it.")
    for namespace in _namespaces(tree):
        if namespace not in NAMESPACES:
            raise not_spoken("operators", f"of the library `{namespace[:60]}`", "Script the model without them.")


def _named(tree: ast.AST) -> Iterator[str]:
    """Every name behind a dot, called by itself, or given to `getattr` as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
            if node.func.id == "getattr":
                given = [each.value for each in node.args if isinstance(each, ast.Constant)]
                yield from (value for value in given if isinstance(value, str))


def _namespaces(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == OPERATORS:
            yield node.attr
