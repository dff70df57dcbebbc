"""A spool on a disk that fills up, or that cannot sync (F5, F6)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import UnavailableError
from modelyard.core.settings import JournalSettings
from modelyard.journal.drain import Drain
from modelyard.journal.frame import encode_frame
from modelyard.journal.spool import SpoolWriter, spool_bytes
from modelyard.testing import MemoryRecordSink, manifest, prediction_record

TMPFS_BYTES = 256 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def frames(one: str, size: int = 2000) -> list[bytes]:
    return list(encode_frame(prediction_record(one).header, b"q" * size, b"a"))


def test_a_full_disk_refuses_whole_turns_and_heals_when_it_has_space(small_disk: Path) -> None:
    """F5: on a 256 KiB disk, turns are accepted until it is full; a refused turn leaves no byte; nothing accepted is
    lost; space freed by somebody else, then by the drain, is used without a restart."""
    hog = small_disk / "hog"
    hog.write_bytes(bytes(64 * 1024))
    folder = small_disk / "spool"
    writer = SpoolWriter(folder, 1, JournalSettings(max_file_bytes=64 * 1024), SystemClock())
    accepted: list[str] = []
    refused = 0

    def fill(prefix: str, turns: int) -> int:
        nonlocal refused
        before = len(accepted)
        for number in range(turns):
            ids = [f"{prefix}{number}-{member}" for member in range(3)]
            size = spool_bytes(folder)
            try:
                writer.append([part for one in ids for part in frames(one)])
                accepted.extend(ids)
            except UnavailableError:
                assert spool_bytes(folder) == size
                refused += 1
        return len(accepted) - before

    assert 0 < fill("a", 60) < 180
    assert refused
    assert fill("b", 5) == 0
    hog.unlink()
    assert fill("c", 5) > 0
    fill("d", 60)

    sink = MemoryRecordSink(lambda _: manifest())
    drain = Drain(folder, sink, lambda *_: (None, None), JournalSettings(), SystemClock())
    drain.step()
    assert sorted(sink.rows) == sorted(accepted)
    assert fill("e", 3) == 9
    writer.close()
    drain.step()
    drain.close()
    assert sorted(sink.rows) == sorted(accepted)
    assert spool_bytes(folder) == 0


SYNCER = """
import os, pathlib, sys
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import encode_frame
from modelyard.journal.spool import SpoolWriter
from modelyard.testing import prediction_record

settings = JournalSettings(durability="host")
writer = SpoolWriter(pathlib.Path(sys.argv[1]), 1, settings, SystemClock(), broken=lambda error: os._exit(70))
for number in range(100):
    writer.append(encode_frame(prediction_record(str(number)).header, b"q", b"a"))
    writer.sync()
    os.write(1, b"%d\\n" % number)
"""


def traced(tmp_path: Path, injection: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", SYNCER, str(tmp_path / "spool")]
    log = str(tmp_path / "trace")
    try:
        return subprocess.run(
            ["strace", "-f", "-o", log, "-e", "trace=fdatasync", "-e", injection, *program],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("strace is not installed (apt-get install strace)")


def stored(tmp_path: Path) -> list[str]:
    sink = MemoryRecordSink(lambda _: manifest())
    drain = Drain(tmp_path / "spool", sink, lambda *_: (None, None), JournalSettings(), SystemClock())
    drain.step()
    drain.close()
    return list(sink.rows)


def test_a_disk_that_cannot_sync_ends_the_process_before_it_acknowledges(tmp_path: Path) -> None:
    """F6: the kernel answers EIO to the 5th fdatasync: four records were acknowledged, not one more, although later
    syncs would succeed; all of them are in the log."""
    ended = traced(tmp_path, "inject=fdatasync:error=EIO:when=5")
    assert ended.returncode == 70, ended.stderr
    assert ended.stdout.split() == ["0", "1", "2", "3"]
    assert '"event":"journal.broken"' in ended.stderr
    assert set(stored(tmp_path)) >= {"0", "1", "2", "3"}


@pytest.mark.parametrize("nth", [1, 2, 7])
def test_a_kill_at_the_nth_sync_loses_nothing_acknowledged(tmp_path: Path, nth: int) -> None:
    """K3: SIGKILL exactly at the N-th fdatasync: acknowledged ⊆ stored, and at most one turn more is stored."""
    ended = traced(tmp_path, f"inject=fdatasync:signal=SIGKILL:when={nth}")
    assert ended.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    acked = ended.stdout.split()
    kept = stored(tmp_path)
    assert acked == [str(number) for number in range(nth - 1)]
    assert kept[: len(acked)] == acked
    assert len(kept) <= len(acked) + 1
