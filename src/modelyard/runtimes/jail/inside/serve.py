"""The jailed process's loop: load once, then one run after the other, until the other side is gone."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ModelyardError
from modelyard.core.types import DATATYPES, Array, Signature
from modelyard.runtimes.allocation import keep_freed
from modelyard.runtimes.jail.inside.adapters import ADAPTERS, Adapter
from modelyard.runtimes.refusals import reason
from modelyard.runtimes.remote.wire import (
    LENGTH,
    Answer,
    Confined,
    DoesNotFitError,
    Failed,
    Load,
    Loaded,
    Order,
    Reply,
    Run,
    frame,
    place,
    take,
)

THREAD_STACK_BYTES = 8 * 1024 * 1024
"""Threads count against the address space by their stacks: that bounds them."""


class Served:
    """The channel, the memory, and the model once it is loaded."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self._channel = int(orders["channel"])
        half = int(orders["area_bytes"])
        memory = memoryview(mmap.mmap(int(orders["area"]), 2 * half))
        self._given, self._answered = memory[:half], memory[half:]
        self._folder, self._entry, self._format = Path(orders["folder"]), str(orders["entry"]), str(orders["format"])
        self._options = orders.get("options") or {}
        self._model: Adapter | None = None
        self._signature: Signature | None = None

    def say(self, reply: Reply) -> None:
        """Writes one frame."""
        data = memoryview(frame(reply))
        while data:
            data = data[os.write(self._channel, data) :]

    def hear(self) -> Order:
        """Reads one frame; SystemExit where the other side is gone."""
        size = LENGTH.unpack(self._read(LENGTH.size))[0]
        order: Order = msgspec.msgpack.decode(self._read(size), type=Order)
        return order

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = os.read(self._channel, size - len(parts))
            if not part:
                raise SystemExit(0)
            parts += part
        return bytes(parts)

    def obey(self, order: Order) -> Reply:
        """What comes of an order; a failure of the model is an answer too."""
        number = order.id if isinstance(order, Run) else 0
        try:
            return self._load(order) if isinstance(order, Load) else self._run(order)
        except MemoryError:
            return Failed(number, "model_out_of_memory", "The model needs more memory than its jail has.")
        except DoesNotFitError:
            return Failed(number, "tensors_too_large", "The answer does not fit into models.jail_tensor_bytes.")
        except ModelyardError as error:
            return Failed(number, error.code, error.message)
        except Exception as error:
            return Failed(number, "model_failed", f"{type(error).__name__}: {reason(error)}")

    def _load(self, order: Load) -> Loaded:
        options = {**self._options, "published": order.signature}
        self._model = ADAPTERS[self._format](self._folder, self._entry, options)
        self._signature = order.signature or self._model.signature
        return Loaded(self._signature, self._model.provenance)

    def _run(self, order: Run) -> Answer:
        if self._model is None or self._signature is None:
            return Answer(order.id, ())
        inputs = {placed.name: take(placed, self._given) for placed in order.inputs}
        outputs = self._model.run(inputs, order.outputs)
        stated = {spec.name: spec.datatype for spec in self._signature.outputs}
        typed = {name: as_stated(name, outputs.get(name), stated[name]) for name in order.outputs or stated}
        return Answer(order.id, place(typed, stated, self._answered))


def as_stated(name: str, value: Any, datatype: str) -> Array:
    """An output in the datatype that was stated; TypeError where that would change it."""
    import numpy as np

    if value is None:
        raise TypeError(f"it gives no output `{name}`")
    array = np.asarray(value)
    if datatype == "BYTES":
        texts = np.empty(array.size, dtype=np.object_)
        texts[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return texts.reshape(array.shape)
    return np.ascontiguousarray(array.astype(DATATYPES[datatype], casting="same_kind", copy=False))


def serve(orders: Mapping[str, Any], failed: dict[str, str], trials: dict[str, str]) -> None:
    """Says how the confinement went, and goes on only if all of it holds. Never returns."""
    threading.stack_size(THREAD_STACK_BYTES)
    keep_freed()
    served = Served(orders)
    served.say(Confined(failed, trials))
    if failed or any(trials.values()):
        os._exit(0)
    # The model's own modules lie beside it; nothing that it prints is anybody's.
    sys.path.insert(0, str(orders["folder"]))
    sys.dont_write_bytecode = True
    while True:
        served.say(served.obey(served.hear()))
