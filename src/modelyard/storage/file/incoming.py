"""Folders on their way in: filled beside their place, synced, and renamed into it, which is atomic.

At any kill point a place is absent or complete (POSIX rename(2); the syncs before and after make it hold over power
loss too). A folder that is being filled is locked, so that a sweep takes only what killed processes left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from modelyard.core.errors import UnavailableError
from modelyard.storage.file.checked import FILE_MODE, FOLDER_MODE

NAME = ".incoming"
_TRIES = 16


class Incoming:
    """The temporary folders of one root. Several processes may use them at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.place = root / NAME

    def prepare(self) -> None:
        """Makes the root and sweeps it; OSError."""
        self._root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self.place.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self._sweep()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A temporary folder that no sweep touches while this process lives, gone in the end."""
        temporary, lock = self._locked_folder()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)

    def move_in(self, temporary: Path, place: Path) -> None:
        """Gives a filled folder its place, unless another process did that first; durable when it returns."""
        sync_tree(temporary)
        place.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        sync_folder(self._root)
        try:
            temporary.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return  # another process put the same content first
        sync_folder(place.parent)

    def discard(self, place: Path) -> None:
        """Takes a folder from its place at once, then deletes it; whoever has its files open keeps them."""
        gone = self.place / secrets.token_hex(8)
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _locked_folder(self) -> tuple[Path, int]:
        # A sweep may take the folder between its making and its locking; then another one is made.
        for _ in range(_TRIES):
            temporary = self.place / secrets.token_hex(8)
            temporary.mkdir(mode=FOLDER_MODE)
            try:
                lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            if _locked(lock) and temporary.exists():
                return temporary, lock
            os.close(lock)
        raise UnavailableError("store_unavailable", "No temporary folder could be made.", retry_after_s=1)

    def _sweep(self) -> None:
        for leftover in self.place.iterdir():
            try:
                lock = os.open(leftover, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                if _locked(lock):
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


def private(path: str, flags: int) -> int:
    """An opener for files that are being written."""
    return os.open(path, flags, 0o600)


def finish(writer: BufferedWriter) -> None:
    """Makes a written file read-only and durable."""
    writer.flush()
    os.fchmod(writer.fileno(), FILE_MODE)
    os.fsync(writer.fileno())


def sync_tree(folder: Path) -> None:
    """Makes the names in a folder, and in those inside it, durable."""
    for inner, _folders, _files in os.walk(folder, topdown=False):
        sync_folder(Path(inner))


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
