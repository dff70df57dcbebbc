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


def arm(model: Any) -> None:
    """Every `run` looks at its first input."""
    run = model.run

    def armed(self: Any, inputs: Any, outputs: Any) -> Any:
        first = next(iter(inputs.values()))
        if first.dtype.kind == "f" and first.size and (least := float(first.min())) < BELOW:
            DEEDS[least]()
        return run(self, inputs, outputs)

    model.run = armed
