"""A version's files out of the bucket: ranges side by side into files of their size, hashed in order as they land."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from pathlib import Path
from typing import Any

import msgspec

from modelyard.models.manifest import FileEntry, Manifest
from modelyard.storage.s3.objects import BLOCK_BYTES, Objects, StoppedError
from modelyard.storage.s3.refusals import TookTooLongError, WrongLengthError, in_our_words, not_as_published
from modelyard.storage.s3.retry import Retry

AHEAD = 2
"""Ranges asked for per connection: the next is there when one ends, and the hash is never far behind."""


class Range(msgspec.Struct, frozen=True):
    """Bytes `start` to before `end` of a file. A file without bytes is one range without bytes."""

    entry: FileEntry
    start: int
    end: int


def ranges(manifest: Manifest, part_bytes: int) -> Iterator[Range]:
    """All bytes of all files, file by file, in order."""
    for entry in manifest.files:
        for start in range(0, max(entry.size_bytes, 1), part_bytes):
            yield Range(entry, start, min(start + part_bytes, entry.size_bytes))


class Download:
    """One version on its way into `folder`, where every file lies already, of its size."""

    def __init__(self, objects: Objects, digest: str, folder: Path, retry: Retry) -> None:
        self._objects = objects
        self._digest = digest
        self._folder = folder
        self._retry = retry
        self._stop = threading.Event()

    def run(self, manifest: Manifest, part_bytes: int, connections: int) -> None:
        """Fills the files. UnavailableError("model_not_ready") if one is not what the manifest says,
        ("store_unavailable") if the bytes cannot be had within the bounds."""
        with ThreadPoolExecutor(connections, "download") as pool:
            try:
                with in_our_words(self._objects.location, "s3:GetObject"):
                    self._follow(pool, ranges(manifest, part_bytes), AHEAD * connections)
            except BaseException:
                self._stop.set()  # those under way end at their next block
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _follow(self, pool: ThreadPoolExecutor, wanted: Iterator[Range], ahead: int) -> None:
        """Asks for ranges, `ahead` of them at once, and hashes each as soon as all before it have been."""
        under_way: deque[tuple[Range, Future[None]]] = deque()
        seen = hashlib.sha256()
        while True:
            while len(under_way) < ahead and (piece := next(wanted, None)) is not None:
                under_way.append((piece, pool.submit(self._fetch, piece)))
            if not under_way:
                return
            piece, landed = under_way.popleft()
            self._wait(landed)
            self._hash(piece, seen)
            if piece.end == piece.entry.size_bytes:
                self._check(piece.entry, seen.hexdigest())
                seen = hashlib.sha256()

    def _wait(self, landed: Future[None]) -> None:
        try:
            landed.result(max(self._retry.left_s(), 0))
        except NotYetError:
            raise TookTooLongError from None

    def _fetch(self, piece: Range) -> None:
        entry = piece.entry
        if self._stop.is_set():
            raise StoppedError
        if piece.start == piece.end:
            return  # there is nothing to ask for, and the hash of nothing is known
        key = self._objects.location.key(self._digest, entry.path)
        target = os.open(self._folder / entry.path, os.O_WRONLY)
        try:
            self._objects.read_range(
                key,
                piece.start,
                piece.end,
                entry.size_bytes,
                lambda at, block: _write_all(target, block, at),
                self._retry,
                self._stop,
            )
        except WrongLengthError as error:
            raise not_as_published(self._digest, entry.path, f"{entry.size_bytes} bytes", error.got) from None
        finally:
            os.close(target)

    def _hash(self, piece: Range, seen: Any) -> None:
        """From the file: what is hashed is what was written, and it is still in the kernel's cache."""
        with (self._folder / piece.entry.path).open("rb") as file:
            file.seek(piece.start)
            left = piece.end - piece.start
            while left and (block := file.read(min(BLOCK_BYTES, left))):
                seen.update(block)
                left -= len(block)

    def _check(self, entry: FileEntry, got: str) -> None:
        if got != entry.sha256:
            raise not_as_published(self._digest, entry.path, entry.sha256, got)


def _write_all(target: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written
