"""SHA-256 of files: each is read once in a load, however many ask for it (promise P5).

What was hashed is known again for a minute, as long as the file is the same inode with the same size and times. A
change that is younger than the resolution of those times could not be seen, so a file that was changed just now is
not remembered, unless the caller wrote it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

VALID_S = 60.0
"""As long as a load may take from the store's check to its own; the next load hashes anew."""
YOUNG_S = 2.0
"""More than the resolution of any file system's times."""
MOST_FILES = 1024
WORTH_BYTES = 4 * 1024 * 1024
"""A smaller file is hashed each time: that takes milliseconds."""

Identity = tuple[int, int, int, int, int]


class HashedFiles:
    """The hashes of a process. For several threads. `now` is UNIX time, as file systems have it."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._known: dict[Identity, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The file's SHA-256 (hex); OSError."""
        with path.open("rb") as file:
            identity = identity_of(os.fstat(file.fileno()))
            with self._lock:
                known, until_s = self._known.get(identity, ("", 0.0))
            if known and self._monotonic() < until_s:
                return known
            found = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
        if identity_of(after) == identity and self._now() - max(after.st_mtime, after.st_ctime) > YOUNG_S:
            self._keep(identity, found)
        return found

    def remember(self, path: Path, sha256: str) -> None:
        """The caller wrote the file, and hashed what it wrote; nobody else can have it open for writing."""
        self._keep(identity_of(path.lstat()), sha256)

    def _keep(self, identity: Identity, sha256: str) -> None:
        if identity[2] < WORTH_BYTES:
            return
        with self._lock:
            self._known[identity] = (sha256, self._monotonic() + VALID_S)
            for oldest in list(self._known)[:-MOST_FILES]:
                del self._known[oldest]


def identity_of(status: os.stat_result) -> Identity:
    """What becomes another when the file does, or its content."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


HASHED = HashedFiles()
"""Those of this process: the store's check and the load's are of the same files."""
