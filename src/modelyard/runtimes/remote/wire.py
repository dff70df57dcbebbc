"""What the two sides say: frames of msgpack over a socket, tensors in memory that both have mapped.

A frame is its length (4 bytes, little-endian) and one message. Never a pickle: a jailed side is not believed, so
whatever it says is read as one of these forms or is an error, and tensors are copied before they are looked at.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from modelyard.core.types import DATATYPES, Array, Signature

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 4 * 1024 * 1024
ALIGN = 64
MAX_DIMENSIONS = 31
MAX_ELEMENTS = 2**48
"""Of a tensor, each dimension counted as one at least: beyond some such number NumPy refuses even an empty one."""


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A tensor in the shared memory: from `offset` on, `size` bytes. BYTES are a msgpack array of binaries."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Load(msgspec.Struct, frozen=True, tag=True):
    """To a jail: load the model. `signature` is the published one; None: say what it is."""

    signature: Signature | None


class Run(msgspec.Struct, frozen=True, tag=True):
    """To the process: run it on these tensors, give these outputs."""

    id: int
    inputs: tuple[Placed, ...]
    outputs: tuple[str, ...]


Order = Load | Run


class Confined(msgspec.Struct, frozen=True, tag=True):
    """From a jail, first of all: what could not be applied, and what came of the trials ("" if one held)."""

    failed: dict[str, str]
    trials: dict[str, str]


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """From the process: the model is in memory."""

    signature: Signature | None
    provenance: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True, tag=True):
    """From the process: the outputs of a run."""

    id: int
    outputs: tuple[Placed, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From the process: the load (id 0) or the run raised. `code` is one that this side may say."""

    id: int
    code: str
    message: str


Reply = Confined | Loaded | Answer | Failed


class DoesNotFitError(Exception):
    """The tensors are larger than the shared memory."""


class WrongTensorError(Exception):
    """What is said of a tensor cannot be; says what."""


def frame(message: msgspec.Struct) -> bytes:
    """The message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def place(tensors: Mapping[str, Array], datatypes: Mapping[str, str], memory: memoryview) -> tuple[Placed, ...]:
    """Writes the tensors into the memory, one behind the other; DoesNotFitError."""
    placed: list[Placed] = []
    at = 0
    for name, array in tensors.items():
        datatype = datatypes[name]
        if datatype == "BYTES":
            content: bytes | memoryview = msgspec.msgpack.encode([bytes(item) for item in array.ravel().tolist()])
            size = len(content)
        else:
            content, size = memoryview(b""), array.nbytes
        if at + size > len(memory):
            raise DoesNotFitError
        if datatype == "BYTES":
            memory[at : at + size] = content
        elif size:
            np.copyto(np.frombuffer(memory, array.dtype, array.size, at).reshape(array.shape), array)
        placed.append(Placed(name, datatype, tuple(array.shape), at, size))
        at += -(-size // ALIGN) * ALIGN
    return tuple(placed)


def take(placed: Placed, memory: memoryview, copy: bool = True) -> Array:
    """A copy of a tensor, or (`copy` false: for a side that is believed) a view of it. WrongTensorError for one that
    cannot be: an unknown datatype, a size that is not its shape's, a place outside the memory."""
    kind = DATATYPES.get(placed.datatype)
    if kind is None or not _can_be(placed.shape):
        raise WrongTensorError(f"{placed.datatype[:20]} of shape {str(list(placed.shape))[:60]}")
    if min(placed.offset, placed.size) < 0 or placed.offset + placed.size > len(memory):
        raise WrongTensorError("it lies outside the memory")
    count = math.prod(placed.shape)
    if placed.datatype == "BYTES":
        return _texts(bytes(memory[placed.offset : placed.offset + placed.size]), count, placed.shape)
    if count * kind.itemsize != placed.size:
        raise WrongTensorError(f"{placed.size} bytes for {count} elements of {placed.datatype}")
    if placed.datatype == "BOOL":  # any byte may lie there; a boolean is 0 or 1
        raw = np.frombuffer(memory, np.uint8, count, placed.offset)
        return np.asarray(raw != 0).reshape(placed.shape)
    found = np.frombuffer(memory, kind, count, placed.offset).reshape(placed.shape)
    return found.copy() if copy else found


def _can_be(shape: Sequence[int]) -> bool:
    few = len(shape) <= MAX_DIMENSIONS and all(size >= 0 for size in shape)
    return few and math.prod(size or 1 for size in shape) <= MAX_ELEMENTS


def _texts(content: bytes, count: int, shape: Sequence[int]) -> Array:
    try:
        items = msgspec.msgpack.decode(content, type=list[bytes])
    except msgspec.MsgspecError:
        raise WrongTensorError("its texts cannot be read") from None
    if len(items) != count:
        raise WrongTensorError(f"{len(items)} texts for {count} elements")
    out = np.empty(count, dtype=np.object_)
    out[:] = items
    return out.reshape(tuple(shape))
