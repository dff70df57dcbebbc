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
RUNS = 8
"""Runs of a worker that can be seen at once: the loop's, and seven of its threads."""
_SLOT_BYTES = _SLOT.size + 8 * RUNS
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_MAGIC = b"mdyboard"
SLOTS = 512
"""Twice the most workers: a successor lives beside the one it replaces."""
SIZE = 64 + SLOTS * _SLOT_BYTES


class WorkerState(IntEnum):
    """Where a worker is in its life."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    DRAINING = 3
    HUNG = 4


class Board:
    """The mapped file. `heartbeat` is CLOCK_MONOTONIC seconds, the same for all processes of a host."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._memory = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._views: list[memoryview] = []

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
        self.leave(slot)
        _SLOT.pack_into(self._memory, self._at(slot), os.getpid(), WorkerState.STARTING, 0.0, 0)

    def leave(self, slot: int) -> None:
        """The slot is free again."""
        _SLOT.pack_into(self._memory, self._at(slot), 0, WorkerState.EMPTY, 0.0, 0)
        self._memory[self._at(slot) + _SLOT.size : self._at(slot + 1)] = bytes(8 * RUNS)

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

    def runs(self, slot: int) -> memoryview:
        """RUNS words for the worker to write which versions it runs now (health.version_token), 0 for none."""
        start = self._at(slot) + _SLOT.size
        view = memoryview(self._memory)[start : start + 8 * RUNS].cast("Q")
        self._views.append(view)
        return view

    def running(self, slot: int) -> frozenset[int]:
        """Which versions a worker ran last, if it ran any when it was last heard of."""
        return frozenset(struct.unpack_from(f"<{RUNS}Q", self._memory, self._at(slot) + _SLOT.size)) - {0}

    def applied(self) -> int | None:
        """The oldest snapshot version that a live worker answers by; None if none lives."""
        live = []
        for slot in range(SLOTS):
            pid, state, beat, version = _SLOT.unpack_from(self._memory, self._at(slot))
            if pid and beat and state != WorkerState.DRAINING and alive(pid):
                live.append(version)
        return min(live) if live else None

    def wait_applied(self, version: int, timeout_s: float, poll_s: float = 0.002) -> bool:
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
        for view in self._views:
            view.release()
        self._views.clear()
        self._memory.close()

    @staticmethod
    def _at(slot: int) -> int:
        return 64 + slot * _SLOT_BYTES


def alive(pid: int) -> bool:
    """Whether there is such a process, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
