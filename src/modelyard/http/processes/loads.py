"""What every worker of a host loaded, and how long that took: one small file a worker, read by all.

A worker replaces its file whole whenever a load begins or ends (models/loads/timeline.py bounds it); a reader leaves
out those of workers that are gone. The parent empties the folder at each start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from modelyard.http.processes.board import alive
from modelyard.models.loads.timeline import Timeline


class WorkerLoads(msgspec.Struct, frozen=True):
    """The loads of one worker."""

    slot: int
    pid: int
    timelines: tuple[Timeline, ...]


class LoadFiles:
    """The files of all workers of a host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Forgets all; for the parent, before it starts a worker."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink()

    def writer(self, slot: int) -> Callable[[tuple[Timeline, ...]], None]:
        """What keeps this worker's file; a disk that refuses costs the file alone, no load."""
        path, fresh = self._folder / f"worker-{slot}", self._folder / f".worker-{slot}"

        def write(timelines: tuple[Timeline, ...]) -> None:
            with suppress(OSError):
                fresh.write_bytes(msgspec.json.encode(WorkerLoads(slot, os.getpid(), timelines)))
                fresh.replace(path)

        return write

    def read(self) -> list[WorkerLoads]:
        """The loads of all workers that live, by slot."""
        found: list[WorkerLoads] = []
        for path in self._folder.glob("worker-*"):
            with suppress(OSError, msgspec.MsgspecError):
                found.append(msgspec.json.decode(path.read_bytes(), type=WorkerLoads))
        return sorted((one for one in found if alive(one.pid)), key=lambda one: one.slot)

    def of(self, model: str, version: str) -> list[tuple[int, Timeline]]:
        """A version's newest load in each worker, with the worker's slot."""
        return [
            (worker.slot, timeline)
            for worker in self.read()
            for timeline in worker.timelines
            if (timeline.model, timeline.version) == (model, version)
        ]
