"""How something takes its place whole or not at all: made beside it under a hidden name, synced, renamed.

A folder that is being made is locked, so that the next one at the same place sweeps what killed processes left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.storage.file.incoming import sync_folder, sync_tree

SUFFIX = ".partial"


@contextmanager
def partial(place: Path) -> Iterator[Path]:
    """A private folder beside `place`, gone in the end unless it took its place; OSError."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(place)
    folder = place.with_name(f".{place.name}.{secrets.token_hex(8)}{SUFFIX}")
    folder.mkdir(mode=0o700)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(place: Path) -> None:
    """Removes what killed processes left beside `place`, also those that died after it was there."""
    for leftover in place.parent.glob(f".{_literal(place.name)}.????????????????{SUFFIX}"):
        try:
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # gone meanwhile, or nothing of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def take_folder(made: Path, place: Path) -> None:
    """Gives a finished folder its place, durable when it returns; FileExistsError if something is there (an empty
    folder is nothing)."""
    sync_tree(made)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        raise
    sync_folder(place.parent)


def take_file(made: Path, place: Path) -> None:
    """Gives a finished and synced file its place, durable when it returns; FileExistsError."""
    os.link(made, place)
    sync_folder(place.parent)
