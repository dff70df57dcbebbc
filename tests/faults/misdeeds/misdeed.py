"""What a model can do to the process that runs it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from typing import Any

BELOW = -9000.0
EXIT, SEGV, ABORT, KILLED, STOP, SPIN, GIL, MEMORY, BLOCK, SLEEP, LEAK = (BELOW - n for n in range(1, 12))
"""exit(1) · a wild pointer · abort() · killed from outside, as the kernel does when memory ends · SIGSTOP · a loop
that never ends · a call into a library that keeps the interpreter's lock · more memory than the process may have ·
three seconds · a minute · 64 KiB that it keeps."""
_kept: list[bytes] = []


def _memory() -> None:
    """Asks for more than the process may have; what comes is a MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))
    try:
        bytearray(64 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _spin() -> None:
    while True:
        pass


DEEDS: dict[float, Any] = {
    EXIT: lambda: os._exit(1),
    SEGV: lambda: ctypes.string_at(8),
    ABORT: os.abort,
    KILLED: lambda: os.kill(os.getpid(), signal.SIGKILL),
    STOP: lambda: os.kill(os.getpid(), signal.SIGSTOP),
    SPIN: _spin,
    GIL: lambda: ctypes.PyDLL(None).sleep(120),
    MEMORY: _memory,
    BLOCK: lambda: time.sleep(3),
    SLEEP: lambda: time.sleep(60),
    LEAK: lambda: _kept.append(os.urandom(64 * 1024)),
}


def arm(module: Any) -> None:
    """Every `run` of a model looks at its first input."""
    model = module.OnnxModel
    run = model.run

    def armed(self: Any, inputs: Any, outputs: Any) -> Any:
        first = next(iter(inputs.values()))
        if first.dtype.kind == "f" and first.size and (least := float(first.min())) < BELOW:
            DEEDS[least]()
        return run(self, inputs, outputs)

    model.run = armed


BEFORE_WRITE, AFTER_WRITE = b"killed-before-the-write", b"killed-after-the-write"
"""Request ids (`x-request-id`): the worker gets SIGKILL before, or after, the frame that holds one is written."""


def arm_spool(module: Any) -> None:
    """Every `append` of a spool looks for the marks."""
    writer = module.SpoolWriter
    append = writer.append

    def armed(self: Any, parts: Any) -> None:
        frames = b"".join(parts)
        if BEFORE_WRITE in frames:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, parts)
        if AFTER_WRITE in frames:
            os.kill(os.getpid(), signal.SIGKILL)

    writer.append = armed
