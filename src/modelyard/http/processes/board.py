"""The board: one small file in memory on which the processes of a host see each other.

The parent makes it anew at each start. Each worker writes its own slot alone; a value is eight aligned bytes, written
in one store. `changes` is rung by whoever changed the database here, so that workers look at once, not at the next
poll.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum
from pathlib import Path

_HEAD = struct.Struct("<8sQ")
_SLOT = struct.Struct("<QQdQ")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_MAGIC = b"mdyboard"
SLOTS = 512
"""Twice the most workers: a successor lives beside the one it replaces."""
SIZE = 64 + SLOTS * _SLOT.size


class WorkerState(IntEnum):
    """Where a worker is in its life."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    DRAINING = 3


class Board:
    """The mapped file. `heartbeat` is CLOCK_MONOTONIC seconds, the same for all processes of a host."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)

    @classmethod
    def create(cls, path: Path) -> Board:
        """A fresh board in place of an old one; processes of an earlier start keep theirs."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(_HEAD.pack(_MAGIC, 0).ljust(SIZE, b"\0"))
        fresh.chmod(0o600)
        fresh.replace(path)
        return cls(path)

    def ring(self) -> None:
        """Something changed in the database."""
        _U64.pack_into(self._memory, 8, time.monotonic_ns())

    def changes(self) -> int:
        """A number that differs after each `ring`."""
        return int(_U64.unpack_from(self._memory, 8)[0])

    def join(self, slot: int) -> None:
        """A worker takes its slot; its heart beats once it accepts connections."""
        _SLOT.pack_into(self._memory, self._at(slot), os.getpid(), WorkerState.STARTING, 0.0, 0)

    def leave(self, slot: int) -> None:
        """The slot is free again."""
        _SLOT.pack_into(self._memory, self._at(slot), 0, WorkerState.EMPTY, 0.0, 0)

    def set_state(self, slot: int, state: WorkerState) -> None:
        """Tells where the worker is."""
        _U64.pack_into(self._memory, self._at(slot) + 8, state)

    def beat(self, slot: int) -> None:
        """The worker's loop turns."""
        _F64.pack_into(self._memory, self._at(slot) + 16, time.monotonic())

    def apply(self, slot: int, version: int) -> None:
        """The worker answers by this snapshot version, and never again by an older one."""
        _U64.pack_into(self._memory, self._at(slot) + 24, version)

    def state(self, slot: int) -> WorkerState:
        """Where a worker is."""
        return WorkerState(_U64.unpack_from(self._memory, self._at(slot) + 8)[0])

    def heartbeat(self, slot: int) -> float:
        """When the worker's loop last turned."""
        return float(_F64.unpack_from(self._memory, self._at(slot) + 16)[0])

    def applied(self) -> int | None:
        """The oldest snapshot version that a live worker answers by; None if none lives."""
        live = []
        for slot in range(SLOTS):
            pid, state, beat, version = _SLOT.unpack_from(self._memory, self._at(slot))
            if pid and beat and state != WorkerState.DRAINING and _alive(pid):
                live.append(version)
        return min(live) if live else None

    def wait_applied(self, version: int, timeout_s: float, poll_s: float = 0.01) -> bool:
        """Rings, and waits until every live worker answers by `version` or newer. True if they do (or none lives)."""
        self.ring()
        deadline = time.monotonic() + timeout_s
        while True:
            applied = self.applied()
            if applied is None or applied >= version:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(poll_s)

    def close(self) -> None:
        """Unmaps the file."""
        self._memory.close()

    @staticmethod
    def _at(slot: int) -> int:
        return 64 + slot * _SLOT.size


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
