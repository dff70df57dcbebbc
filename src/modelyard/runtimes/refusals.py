"""How a runtime says no: one sentence, a stable code, never a path of this host or a traceback."""

from __future__ import annotations

import bz2
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.core.errors import ModelError, PublishError
from modelyard.core.types import Array, TensorSpec

MAX_REASON_CHARS = 240
MAX_NAME_CHARS = 256
MAX_ROW_ELEMENTS = 64 * 1024 * 1024
"""Elements of one row of one tensor; a model that states more would fill the memory with one request."""

DAMAGED_ZIP = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError)
"""What `zipfile` raises for an archive that is cut off, altered, encrypted (ValueError), or of a version or compression
that it does not know (NotImplementedError)."""

_COMPRESSIONS: Mapping[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31), b"BZh": bz2.BZ2Decompressor, b"\xfd7zXZ": lzma.LZMADecompressor,
    b"\x5d\x00\x00": lzma.LZMADecompressor, b"\x78": zlib.decompressobj,
}  # fmt: skip
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ (?:[^()]*\([^)]*\)\s?)?(?:const )?")
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)*[\w.@+-]+")
MAX_READ_CHARS = 4096
"""Of a message: the patterns may take the square of its length, and models write messages."""


def reason(error: BaseException) -> str:
    """A library's message, or a model's, without paths, source positions and what cannot be printed."""
    text = _PREFIX.sub("", str(error)[:MAX_READ_CHARS].split("Traceback", 1)[0])
    text = _PATH.sub("(path)", _SOURCE.sub("", text))
    plain = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(plain.split())[:MAX_REASON_CHARS] or type(error).__name__


def unreadable(kind: str, why: str, **detail: Any) -> PublishError:
    """The file claims to be of a format and is not, or only in part."""
    return PublishError(
        "model_unreadable",
        f"The file is not a complete {kind} model: {why}",
        field="model",
        expected=f"a complete {kind} model",
        **detail,
    )


def not_spoken(field: str, got: str, remedy: str) -> PublishError:
    """The model takes, gives or uses something that cannot be served."""
    return PublishError(
        "format_not_allowed", f"`{field}` is {got}, which cannot be served. {remedy}", field=field, got=got
    )


def leave(form: str) -> str:
    """The sentence that ends the refusal of a format that runs code: what else would let it in."""
    return f"Or let the operator allow `{form}` in models.unsafe_formats, and sign the version."


def check_spec(place: str, spec: TensorSpec) -> TensorSpec:
    """The tensor, if its names and shape can be served: printable, and a row that fits in memory."""
    if not 0 < len(spec.name) <= MAX_NAME_CHARS or not spec.name.isprintable():
        raise not_spoken(f"{place}.name", repr(spec.name)[:80], "Name it with 1 to 256 printable characters.")
    for field, names in (("columns", spec.columns), ("labels", spec.labels)):
        bad = next((name for name in names if not name.isprintable()), None)
        if bad is not None:
            raise not_spoken(f"{place}.{field}", repr(bad)[:80], "Name it with printable characters.")
        if names and (len(set(names)) != len(names) or spec.shape[-1:] not in ((-1,), (len(names),))):
            got = f"{len(names)} names, {len(set(names))} of them different, for the shape {list(spec.shape)}"
            raise not_spoken(f"{place}.{field}", got[:120], "Give each element of a row one name of its own.")
    elements = 1
    for size in spec.shape:
        if size < -1 or size == 0:
            raise not_spoken(f"{place}.shape", str(list(spec.shape))[:80], "Export it with positive dimensions.")
        elements *= max(1, size)
    if elements > MAX_ROW_ELEMENTS:
        raise not_spoken(
            f"{place}.shape", f"{str(list(spec.shape))[:80]}", f"A row may hold {MAX_ROW_ELEMENTS} elements."
        )
    return spec


def extra_missing(kind: str, extra: str) -> PublishError:
    """The format's library is not installed: one sentence with the command that installs it."""
    install = f"pip install 'modelyard[{extra}]'"
    return PublishError(
        "runtime_missing",
        f"{kind} models need an extra that is not installed here: {install}",
        field="model",
        example=install,
    )


def nonempty(path: Path) -> Path:
    """The path, if it is a file with something in it; PublishError("model_empty")."""
    if not path.is_file() or path.stat().st_size == 0:
        raise PublishError("model_empty", "The model is empty: it holds no bytes.", field="model", got="0 bytes")
    return path


def only_one(kind: str, folder: Path, is_one: Callable[[Path], bool]) -> str | None:
    """The one regular file below the folder that `is_one`, as a relative path, or None; PublishError("format_unknown")
    if there are several."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    found = [path.relative_to(folder).as_posix() for path in files if is_one(path)]
    if len(found) > 1:
        raise PublishError(
            "format_unknown", f"The folder holds several {kind} models; publish one.", field="model", got=found[:10]
        )
    return found[0] if found else None


def fitting(name: str, shape: Sequence[int], array: Array) -> Array:
    """The array, if it has the shape that the model takes; ModelError("model_failed")."""
    fits = array.ndim == len(shape) and all(s in (-1, have) for s, have in zip(shape, array.shape, strict=True))
    if not fits:
        raise ModelError(
            "model_failed", f"The model takes `{name}` of the shape {list(shape)}, not {list(array.shape)}."
        )
    return array


def is_pickle(path: Path) -> bool:
    """A pickle, bare or compressed as joblib does it, or an NPY file of objects."""
    with path.open("rb") as file:
        head = file.read(256)
    return (head.startswith(b"\x93NUMPY") and b"'|O'" in head) or is_bare_pickle(head)


def is_bare_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle (protocol 2 or later, or the usual beginnings of the older ones), also
    behind a compression that joblib knows."""
    for magic, decompressor in _COMPRESSIONS.items():
        if head.startswith(magic):
            head = _inflated(decompressor(), head)
            break
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    return head.startswith((b"cposix\n", b"cbuiltins\n", b"c__builtin__\n", b"ccopy_reg\n"))


def _inflated(decompressor: Any, head: bytes) -> bytes:
    """The first bytes of what is compressed; bounded, whatever it is."""
    try:
        return bytes(decompressor.decompress(head, 64))
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return b""
