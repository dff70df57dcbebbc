"""Locks between processes, by flock(2), on files that may be removed: a lock counts while its file is at its path."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.errors import UnavailableError

AGAIN_S = 0.02
"""flock(2) waits without bound or not at all; so it is asked again this often."""


def try_lock(path: Path, shared: bool) -> int | None:
    """The descriptor that holds the lock until it is closed, None if somebody else has it. Threads of one process
    exclude each other too: each call has a file description of its own."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if _is_at(path, handle):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def lock(path: Path, shared: bool, timeout_s: float) -> int:
    """The descriptor that holds the lock; UnavailableError("store_unavailable") if it is not free in time."""
    deadline = time.monotonic() + timeout_s
    while (handle := try_lock(path, shared)) is None:
        if time.monotonic() > deadline:
            raise UnavailableError(
                "store_unavailable",
                "Another process works on the same files of the artifact cache for too long.",
                retry_after_s=5.0,
                field="artifacts.timeout_s",
            )
        time.sleep(AGAIN_S)
    return handle


@contextmanager
def locked(path: Path, timeout_s: float, remove: bool = False) -> Iterator[None]:
    """Holds the lock alone, and at the end removes its file if asked to; UnavailableError("store_unavailable")."""
    handle = lock(path, False, timeout_s)
    try:
        yield
    finally:
        if remove:
            path.unlink(missing_ok=True)
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether nobody removed the file while we waited for it."""
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
