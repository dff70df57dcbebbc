"""Counters of predictions by version, one file in memory per worker, read by all (Triton's statistics extension).

A worker adds to its own file alone, once per run of a model, in aligned words of eight bytes; a reader sums over all
files. A worker that takes over a slot goes on counting where the one before stopped; the parent empties the folder at
each start, so the counts are those since the start of the server.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # the parent clears the folder, and imports nothing heavy
    from modelyard.core.types import Servable
    from modelyard.predict.prediction import Prediction

ROWS = 256
"""Versions that one worker can count; further ones are not counted."""
NAME_BYTES = 264
_NAME_WORDS = NAME_BYTES // 8
EXACT_SIZES = 128
SIZES = (*range(1, EXACT_SIZES + 1), *(2**power for power in range(8, 16)))
"""Sizes of a run that are told apart: up to 128 rows exactly, above it by the next power of two, at most 32,768."""
SUCCESS, SUCCESS_NS, FAIL, FAIL_NS, QUEUE_NS, INFER_NS, OUTPUT_NS, INFERENCES, RUNS, LAST_MS = range(10)
_SIZE_COUNTS = 10
_SIZE_NS = _SIZE_COUNTS + len(SIZES)
_COUNTERS = _SIZE_NS + len(SIZES)
_ROW_WORDS = _NAME_WORDS + _COUNTERS
_FILE_BYTES = 8 * (1 + ROWS * _ROW_WORDS)

_STARTED = attrgetter("started_s")

Version = tuple[str, str]
"""A model and a version of it."""


class Counts(msgspec.Struct, frozen=True):
    """What happened to one version since the server's start, over all workers; times are nanoseconds, summed over
    requests. `sizes` has, by rows of a run, how many runs and how long they took together."""

    success: int = 0
    success_ns: int = 0
    fail: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    inferences: int = 0
    runs: int = 0
    last_ms: int = 0
    sizes: Mapping[int, tuple[int, int]] = {}


class Tally:
    """One worker's counters. Not for several threads."""

    def __init__(
        self, path: Path, monotonic: Callable[[], float] = perf_counter, now: Callable[[], float] = time
    ) -> None:
        self._monotonic = monotonic
        self._now = now
        self._memory = _mapped(path)
        self._words = memoryview(self._memory).cast("Q")
        self._rows = {
            name: 1 + row * _ROW_WORDS + _NAME_WORDS for row, name in enumerate(_names(self._words, self._memory))
        }

    def note(self, turn: Sequence[Prediction]) -> None:
        """Counts the predictions that one turn of the loop settled, in the order in which their runs ended."""
        settled_s = self._monotonic()
        for _, members in groupby(turn, _STARTED):  # the requests of one run share the moment of its start
            run = list(members)
            good = [prediction for prediction in run if prediction.error is None and prediction.status == 200]
            if len(good) < len(run):  # one pass each: comparing members would be quadratic when a batch fails
                bad = [prediction for prediction in run if prediction.error is not None or prediction.status != 200]
                self._add_failed(bad, settled_s)
            if good:
                self._add(good, settled_s)

    def answered_at(self, version: Version) -> float:
        """When a version last gave a good answer here, UNIX seconds; 0.0 if it never did."""
        base = self._rows.get(version)
        return 0.0 if base is None else self._words[base + LAST_MS] / 1000

    def close(self) -> None:
        """Unmaps the file."""
        self._words.release()
        self._memory.close()

    def _add(self, run: Sequence[Prediction], settled_s: float) -> None:
        first = run[0]
        base = self._row(first.servable)
        if base is None:
            return
        words = self._words
        count = len(run)
        waited = sum([prediction.submitted_s for prediction in run])
        rows = sum([prediction.request.rows or 1 for prediction in run])
        run_ns = max(0, int((first.ended_s - first.started_s) * 1e9))
        words[base + SUCCESS] += count
        words[base + SUCCESS_NS] += max(0, int((count * settled_s - waited) * 1e9))
        words[base + INFERENCES] += rows
        words[base + LAST_MS] = int(self._now() * 1000)
        if first.ended_s > first.started_s:  # without a run there was nothing good to ask the model
            words[base + QUEUE_NS] += max(0, int((count * first.started_s - waited) * 1e9))
            words[base + INFER_NS] += count * run_ns
            words[base + OUTPUT_NS] += max(0, int(count * (settled_s - first.ended_s) * 1e9))
            place = _size_place(rows)
            words[base + RUNS] += 1
            words[base + _SIZE_COUNTS + place] += 1
            words[base + _SIZE_NS + place] += run_ns

    def _add_failed(self, failed: Sequence[Prediction], settled_s: float) -> None:
        """Requests that were refused, whose run failed, or whose caller left."""
        for prediction in failed:
            base = self._row(prediction.servable)
            if base is not None:
                self._words[base + FAIL] += 1
                self._words[base + FAIL_NS] += max(0, int((settled_s - prediction.submitted_s) * 1e9))

    def _row(self, servable: Servable) -> int | None:
        """Where the version's counters begin; None when the file is full."""
        name = (servable.model, servable.version)
        base = self._rows.get(name)
        if base is None and len(self._rows) < ROWS:
            row = len(self._rows)
            start = 8 * (1 + row * _ROW_WORDS)
            written = "\0".join(name).encode("ascii").ljust(NAME_BYTES, b"\0")
            self._memory[start : start + NAME_BYTES] = written
            self._rows[name] = base = 1 + row * _ROW_WORDS + _NAME_WORDS
            self._words[0] = row + 1  # from now on readers see it
        return base


class Tallies:
    """The files of all workers of a host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Forgets all counts; for the parent, before it starts a worker."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.glob("worker-*"):
            path.unlink()

    def open(self, slot: int) -> Tally:
        """The counters of the worker in this slot."""
        return Tally(self._folder / f"worker-{slot}")

    def read(self) -> dict[Version, Counts]:
        """The sums over all workers, by version."""
        found: dict[Version, list[int]] = {}
        for path in sorted(self._folder.glob("worker-*")):
            for name, counters in _read(path).items():
                sums = found.setdefault(name, [0] * _COUNTERS)
                last = max(sums[LAST_MS], counters[LAST_MS])
                sums[:] = [one + other for one, other in zip(sums, counters, strict=True)]
                sums[LAST_MS] = last
        return {name: _counts(sums) for name, sums in found.items()}


def _size_place(rows: int) -> int:
    if rows <= EXACT_SIZES:
        return rows - 1
    return min(EXACT_SIZES + (rows - 1).bit_length() - 8, len(SIZES) - 1)


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size != _FILE_BYTES:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, _FILE_BYTES)
        return mmap.mmap(descriptor, _FILE_BYTES)
    finally:
        os.close(descriptor)


def _names(words: memoryview, memory: mmap.mmap | bytes) -> list[Version]:
    names: list[Version] = []
    for row in range(min(int(words[0]), ROWS)):
        start = 8 * (1 + row * _ROW_WORDS)
        model, version = bytes(memory[start : start + NAME_BYTES]).rstrip(b"\0").decode("ascii").split("\0")
        names.append((model, version))
    return names


def _read(path: Path) -> dict[Version, list[int]]:
    data = path.read_bytes()
    if len(data) != _FILE_BYTES:
        return {}
    words = memoryview(data).cast("Q")
    found: dict[Version, list[int]] = {}
    for row, name in enumerate(_names(words, data)):
        base = 1 + row * _ROW_WORDS + _NAME_WORDS
        found[name] = words[base : base + _COUNTERS].tolist()
    return found


def _counts(sums: list[int]) -> Counts:
    sizes = {
        size: (sums[_SIZE_COUNTS + place], sums[_SIZE_NS + place])
        for place, size in enumerate(SIZES)
        if sums[_SIZE_COUNTS + place]
    }
    names = Counts.__struct_fields__[:_SIZE_COUNTS]
    return Counts(**dict(zip(names, sums, strict=False)), sizes=sizes)
