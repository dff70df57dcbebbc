"""The anchored head of the audit log: one line beside the database, so that a log cut at its end is noticed.

One JSON object, `{"hash", "sequence"}`, padded with spaces to a fixed length and written in place: a line that never
grows beyond one page is never half written when a process dies. The file is private (0600).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from modelyard.audit.chain import Head
from modelyard.core.events import Event
from modelyard.telemetry.logs import emit

LINE_BYTES = 128


class UnreadableHeadError(Exception):
    """The file is there and holds no head."""


class HeadFile:
    """The head file at `path`. Safe for threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Head | None:
        """The kept head, None without a file; UnreadableHeadError."""
        try:
            return _parsed(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreadableHeadError(str(error.strerror)) from None

    def advance(self, head: Head) -> None:
        """Keeps this head, durably, unless a later one is kept. Never raises: the change that led to it is made."""
        try:
            with self._locked() as descriptor:
                stored = os.pread(descriptor, LINE_BYTES, 0)
                if stored and _parsed(stored).sequence >= head.sequence:
                    return
                os.pwrite(descriptor, msgspec.json.encode(head, order="sorted").ljust(LINE_BYTES - 1) + b"\n", 0)
                os.fsync(descriptor)
        except (OSError, UnreadableHeadError) as error:
            emit(Event.AUDIT_HEAD_FAILED, "error", sequence=head.sequence, reason=str(error))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for one write and one fsync
            yield descriptor
        finally:
            os.close(descriptor)


def _parsed(line: bytes) -> Head:
    try:
        return msgspec.json.decode(line, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableHeadError(str(error)) from None
