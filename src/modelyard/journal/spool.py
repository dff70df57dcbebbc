"""The spool: where the records of a turn are written before its answers leave (promise P1).

Each worker process owns its files, `<epoch>-<sequence>.spool`, and holds a flock on the one it writes to; a file that
nobody holds belongs to a dead worker, or was rotated away, and is the drain's to finish and delete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.core.clock import Clock
from modelyard.core.errors import UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import MARK
from modelyard.telemetry.logs import Emit, emit

SUFFIX = ".spool"
STORE_AWAY = "store.away"
"""This file is there while the drain cannot reach the database (see `journal.on_failure = refuse`)."""
WARN_SHARE = 0.75
RETRY_AFTER_S = 1.0
FILE_SHARE = 8
"""No file takes more than this part of the spool, or a few half-read files could fill it."""
MAX_FILE_AGE_S = 5.0
"""A file is rotated after this long, so that raw bodies don't lie about on a quiet server."""
COPY_BYTES = 1024 * 1024
"""Turns up to this size are joined first: copying them is cheaper than one vector entry per part."""

_IOV_MAX = os.sysconf("SC_IOV_MAX")


class SpoolBroken(Exception):  # noqa: N818 - a state of the disk, not a refusal
    """fdatasync failed: what was written may be lost although a second fdatasync would succeed. The process must
    stop acknowledging and exit."""


class SpoolWriter:
    """The files of one worker process. `append`, `poll` and `close` belong to the loop's thread; `sync` may run in
    any other. `broken` is called as soon as an fdatasync fails, before SpoolBroken is raised: it should end the
    process."""

    def __init__(
        self,
        folder: Path,
        epoch: int,
        settings: JournalSettings,
        clock: Clock,
        *,
        broken: Callable[[BaseException], None] | None = None,
        emit: Emit = emit,
        max_file_age_s: float = MAX_FILE_AGE_S,
    ) -> None:
        self._folder = folder
        self._epoch = epoch
        self._settings = settings
        self._clock = clock
        self._broken_hook = broken
        self._emit = emit
        self._max_file_age_s = max_file_age_s
        self._max_file_bytes = min(settings.max_file_bytes, settings.max_spool_bytes // FILE_SHARE)
        self._host = settings.durability == "host"
        self._guard = threading.Lock()  # of the descriptor, between the loop's rotation and a thread's sync
        self._fd = -1
        self._size = 0
        self._sequence = 0
        self._opened_s = 0.0
        self._used = 0
        self._store_away = False
        self._refusing = self._high = self._broken = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.poll()

    @property
    def used_bytes(self) -> int:
        """Bytes of the whole folder, as of the last poll, plus what this worker wrote since."""
        return self._used

    def append(self, parts: Sequence[bytes]) -> None:
        """Writes the frames of one turn in one write.

        Raises UnavailableError("journal_unavailable") if not all of them could be written, after everything written
        was truncated away again; the next call tries anew, so the spool heals by itself. Raises SpoolBroken, with
        `host` durability only, once an fdatasync failed.
        """
        if self._broken:
            raise SpoolBroken("an earlier fdatasync failed")
        if not parts:
            return
        parts = [*parts, MARK]
        total = sum(map(len, parts))
        if self._store_away:
            raise self._refuse("the database is away and journal.on_failure is refuse")
        if self._used + total > self._settings.max_spool_bytes:
            self._release_file()  # lets the drain delete it
            raise self._refuse("the spool is full (journal.max_spool_bytes)")
        try:
            if self._fd < 0 or (self._size and self._size + total > self._max_file_bytes):
                self._rotate()
            self._write(parts, total)
        except OSError as error:
            self._undo()
            raise self._refuse(f"the spool cannot be written: {os.strerror(error.errno or errno.EIO)}") from None
        self._size += total
        self._used += total
        if self._refusing:
            self._refusing = False
            self._emit(Event.JOURNAL_HEALED)

    def sync(self) -> None:
        """Makes everything appended before the call durable on the host (fdatasync).

        Raises SpoolBroken if the disk refuses, then and for ever after: the kernel may have dropped the pages, and a
        later fdatasync that succeeds proves nothing.
        """
        with self._guard:
            if self._broken:
                raise SpoolBroken("an earlier fdatasync failed")
            if self._fd < 0:
                return
            descriptor = os.dup(self._fd)
        try:
            self._datasync(descriptor)
        finally:
            os.close(descriptor)

    def poll(self) -> None:
        """Looks at the folder; called twice a second. Refreshes the spool's size, warns at 75 %, rotates an old
        file, and sees whether the drain lost the database. A folder that cannot be read now (no descriptor left) is
        looked at the next time; raises SpoolBroken alone."""
        with contextlib.suppress(OSError):
            self._look()
            if self._size and self._clock.monotonic() - self._opened_s > self._max_file_age_s:
                self._release_file()

    def _look(self) -> None:
        self._used = sum(_sizes(self._folder))
        self._store_away = self._settings.on_failure == "refuse" and (self._folder / STORE_AWAY).exists()
        high = self._used > WARN_SHARE * self._settings.max_spool_bytes
        if high and not self._high:
            self._emit(
                Event.JOURNAL_SPOOL_HIGH, "warning", used_bytes=self._used, max_bytes=self._settings.max_spool_bytes
            )
        self._high = high

    def close(self) -> None:
        """Lets go of the last file; the drain finishes it."""
        self._release_file()

    def _write(self, parts: Sequence[bytes], total: int) -> None:
        if total <= COPY_BYTES or len(parts) > _IOV_MAX:
            written = os.write(self._fd, b"".join(parts))
        else:
            written = os.writev(self._fd, parts)
        if written == total:
            return
        rest = memoryview(b"".join(parts))[written:]  # a disk that is full now says so on the next write
        while rest:
            written = os.write(self._fd, rest)
            if written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[written:]

    def _undo(self) -> None:
        """Back to the end of the last whole turn; a file that cannot be truncated is given up: its unmarked tail is
        no record."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._release_file()

    def _rotate(self) -> None:
        self._release_file()
        name = f"{self._epoch:016x}-{self._sequence:08d}{SUFFIX}"
        self._sequence += 1  # also if this fails: a name that was seen belongs to the drain, which deletes by it
        made = self._folder / f".{name}"
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: the drain takes any unlocked spool file for a dead worker's.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made.rename(self._folder / name)
            if self._host:
                self._sync_folder()
        except BaseException:
            os.close(descriptor)
            made.unlink(missing_ok=True)
            raise
        self._opened_s = self._clock.monotonic()
        self._size = 0
        with self._guard:
            self._fd = descriptor

    def _release_file(self) -> None:
        if self._fd < 0:
            return
        with self._guard:  # to the end: a sync that comes now must not succeed before this one did
            descriptor, self._fd, self._size = self._fd, -1, 0
            try:
                if self._host:
                    self._datasync(descriptor)
            finally:
                os.close(descriptor)

    def _datasync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._broken = True
            self._emit(Event.JOURNAL_BROKEN, "error", reason=str(error))
            if self._broken_hook is not None:
                self._broken_hook(error)
            raise SpoolBroken(str(error)) from error

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _refuse(self, reason: str) -> UnavailableError:
        if not self._refusing:
            self._refusing = True
            self._emit(Event.JOURNAL_REFUSED, "error", reason=reason)
        return UnavailableError(
            "journal_unavailable",
            "The prediction cannot be recorded, so it is not answered; nothing was kept.",
            retry_after_s=RETRY_AFTER_S,
            reason=reason,
        )


def spool_files(folder: Path) -> list[Path]:
    """The spool files of a folder, those of one worker in the order of their writing."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def spool_bytes(folder: Path) -> int:
    """Bytes that wait in a folder for the drain, or for the deletion of the file they lie in."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for path in spool_files(folder):
        with contextlib.suppress(FileNotFoundError):  # the drain deletes files at any time
            sizes.append(path.stat().st_size)
    return sizes
