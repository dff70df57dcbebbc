"""What the spool held at one moment, and whether the database has it.

The spool itself goes into no backup: it holds what callers sent before anything was redacted. A backup waits instead
until the drain has stored what was there when it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from modelyard.app.folder import DataFolder
from modelyard.app.services import open_services
from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError
from modelyard.core.settings import Settings
from modelyard.journal.frame import read_frames
from modelyard.journal.spool import spool_bytes, spool_files

POLL_S = 0.05

Position = Callable[[str], int]
"""How far a spool file is in the database, in bytes; 0 for an unknown one."""


def mark(spool: Path) -> dict[str, int]:
    """How long each file is now."""
    marks = {}
    for path in spool_files(spool):
        with suppress(FileNotFoundError):  # stored meanwhile
            marks[path.name] = path.stat().st_size
    return marks


def behind(spool: Path, marks: Mapping[str, int], position: Position) -> dict[str, int]:
    """The marks that the database has not reached. A file that is gone was stored; one that is shorter than its mark
    lost a write that failed, and with it nothing that was answered."""
    left = {}
    for name, size in marks.items():
        stored = position(name)  # first: a file's position is forgotten after the file is gone
        with suppress(FileNotFoundError):
            if stored < min(size, (spool / name).stat().st_size):
                left[name] = size
    return left


def settled(
    spool: Path,
    marks: Mapping[str, int],
    position: Position,
    clock: Clock,
    timeout_s: float,
    pause: Callable[[float], object] = time.sleep,
) -> dict[str, int]:
    """The marks that the database has not reached within `timeout_s`; none if all went well."""
    deadline = clock.monotonic() + timeout_s
    left = dict(marks)
    while (left := behind(spool, left, position)) and clock.monotonic() < deadline:
        pause(POLL_S)
    return left


def records(spool: Path, marks: Mapping[str, int], position: Position) -> int:
    """How many records lie between the database and these marks."""
    count = 0
    for name, size in marks.items():
        begin = position(name)
        with suppress(FileNotFoundError), (spool / name).open("rb") as file:
            count += sum(1 for frame in read_frames(file, begin) if frame.end <= size)
    return count


def store_rest(settings: Settings) -> None:
    """Stores what a server that is gone left in the spool of its data folder, for as long as that brings something."""
    services = open_services(settings)
    try:
        while services.drain(None) and spool_bytes(DataFolder(settings.data).spool):
            pass  # each call ends after a bounded time
    except ConflictError:  # a server started meanwhile; its drain does it
        pass
    finally:
        services.close()
