"""The spool: a turn is there as a whole or refused as a whole, and the folder stays bounded (promises P1, P4)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import encode_frame, read_frames
from modelyard.journal.spool import STORE_AWAY, SpoolBroken, SpoolWriter, spool_bytes, spool_files
from modelyard.testing import FakeClock, prediction_record


class Events:
    """What was logged."""

    def __init__(self) -> None:
        self.seen: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, level: str = "info", **fields: Any) -> None:
        self.seen.append((event, fields))

    def names(self) -> list[Event]:
        return [event for event, _ in self.seen]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> Events:
    return Events()


Make = Callable[..., SpoolWriter]


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock, events: Events) -> Iterator[Make]:
    made: list[SpoolWriter] = []

    def writer(epoch: int = 1, **settings: Any) -> SpoolWriter:
        made.append(SpoolWriter(tmp_path / "spool", epoch, JournalSettings(**settings), clock, emit=events))
        return made[-1]

    yield writer
    for one in made:
        with contextlib.suppress(SpoolBroken):
            one.close()


def frames(*ids: str, size: int = 10) -> list[bytes]:
    return [part for one in ids for part in encode_frame(prediction_record(one).header, bytes(size), b"answer")]


def stored_ids(folder: Path) -> list[str]:
    ids = []
    for path in spool_files(folder):
        with path.open("rb") as file:
            ids += [frame.record_header().id for frame in read_frames(file)]
    return ids


def test_a_turn_is_on_disk_when_append_returns(make: Make, tmp_path: Path) -> None:
    """Every frame of every turn, in order; the file is private and named by epoch and sequence."""
    writer = make(epoch=0xAB)
    writer.append(frames("a", "b"))
    writer.append(frames("c"))
    (path,) = spool_files(tmp_path / "spool")
    assert stored_ids(tmp_path / "spool") == ["a", "b", "c"]
    assert path.name == "00000000000000ab-00000000.spool"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_one_turn_is_one_write(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests a turn has, and whatever their size, the kernel is called once."""
    writer = make()
    writer.append(frames("first"))
    calls: list[str] = []
    for name in ("write", "writev"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, original=original: (calls.append(name), original(*args))[1]
        )
    writer.append(frames(*map(str, range(64))))
    writer.append(frames("large", size=2_000_000))
    writer.append(frames(*map(str, range(700))))
    assert calls == ["write", "writev", "write"]


def test_an_empty_turn_writes_nothing(make: Make, tmp_path: Path) -> None:
    """No frames, no mark, no file."""
    make().append([])
    assert spool_files(tmp_path / "spool") == []


def short_write(monkeypatch: pytest.MonkeyPatch, then: int) -> None:
    """The next write takes 100 bytes, the one after it fails with this errno, then all is well."""
    original, calls = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return original(descriptor, bytes(data[:100]))
        if len(calls) == 2 and then:
            raise OSError(then, os.strerror(then))
        return original(descriptor, data)

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_is_truncated_back_and_refused(
    make: Make, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The whole turn gets journal_unavailable, nothing of it stays, and the next turn is written: healed."""
    writer = make()
    writer.append(frames("a"))
    size = spool_bytes(tmp_path / "spool")
    short_write(monkeypatch, then=code)
    with pytest.raises(UnavailableError) as refused:
        writer.append(frames("b", "c"))
    assert refused.value.code == "journal_unavailable"
    assert refused.value.retry_after_s
    assert spool_bytes(tmp_path / "spool") == size
    writer.append(frames("d"))
    assert stored_ids(tmp_path / "spool") == ["a", "d"]
    assert events.names() == [Event.JOURNAL_REFUSED, Event.JOURNAL_HEALED]


def test_a_short_write_that_can_go_on_goes_on(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write cut short by nothing lasting is completed, not refused."""
    writer = make()
    short_write(monkeypatch, then=0)
    writer.append(frames("a", "b"))
    assert stored_ids(tmp_path / "spool") == ["a", "b"]


def test_a_file_that_cannot_be_truncated_is_given_up(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If even the truncation fails, the next turn goes to a new file and the torn one yields no half turn."""
    writer = make()
    writer.append(frames("a"))
    with monkeypatch.context() as broken:
        short_write(broken, then=errno.EIO)

        def refuse(descriptor: int, length: int) -> None:
            raise OSError(errno.EIO, "no")

        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(UnavailableError):
            writer.append(frames("b", "c"))
    writer.append(frames("d"))
    assert len(spool_files(tmp_path / "spool")) == 2
    assert stored_ids(tmp_path / "spool") == ["a", "d"]


def test_files_are_rotated_at_their_bound_and_released(make: Make, tmp_path: Path) -> None:
    """No file but one with a single large turn is over max_file_bytes; only the last is held."""
    writer = make(max_file_bytes=4096)
    for number in range(20):
        writer.append(frames(str(number), size=1000))
    writer.append(frames("large", size=10_000))
    paths = spool_files(tmp_path / "spool")
    assert stored_ids(tmp_path / "spool") == [*map(str, range(20)), "large"]
    assert all(path.stat().st_size <= 4096 for path in paths[:-1])
    assert [held(path) for path in paths] == [False] * (len(paths) - 1) + [True]


def held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_quiet_worker_lets_go_of_its_file(make: Make, tmp_path: Path, clock: FakeClock) -> None:
    """A file is released some seconds after its first turn, so that the drain can finish and delete it."""
    writer = make()
    writer.append(frames("a"))
    writer.poll()
    (path,) = spool_files(tmp_path / "spool")
    assert held(path)
    clock.advance(6.0)
    writer.poll()
    assert not held(path)
    writer.append(frames("b"))
    assert len(spool_files(tmp_path / "spool")) == 2


def test_the_folder_is_bounded_over_all_workers(make: Make, tmp_path: Path, events: Events) -> None:
    """Beyond max_spool_bytes every worker refuses; a warning comes at 75 %; space that the drain freed heals it."""
    one, two = make(1, max_spool_bytes=64 * 1024), make(2, max_spool_bytes=64 * 1024)
    for number in range(100):
        one.poll()
        try:
            one.append(frames(str(number), size=1000))
        except UnavailableError:
            break
    assert 60_000 < spool_bytes(tmp_path / "spool") <= 64 * 1024
    assert events.names() == [Event.JOURNAL_SPOOL_HIGH, Event.JOURNAL_REFUSED]
    two.poll()
    with pytest.raises(UnavailableError, match="recorded"):
        two.append(frames("x", size=1000))
    for path in spool_files(tmp_path / "spool"):
        assert not held(path)
        path.unlink()
    for writer in (one, two):
        writer.poll()
        writer.append(frames("y", size=1000))
    assert stored_ids(tmp_path / "spool") == ["y", "y"]


def test_refuse_mode_follows_the_drain(make: Make, tmp_path: Path) -> None:
    """journal.on_failure: while the drain says that the store is away, refuse refuses and spool spools."""
    refusing, spooling = make(1, on_failure="refuse"), make(2, on_failure="spool")
    marker = tmp_path / "spool" / STORE_AWAY
    marker.touch()
    for writer in (refusing, spooling):
        writer.poll()
    spooling.append(frames("a"))
    with pytest.raises(UnavailableError):
        refusing.append(frames("b"))
    marker.unlink()
    refusing.poll()
    refusing.append(frames("c"))
    assert stored_ids(tmp_path / "spool") == ["c", "a"]


def test_a_failed_sync_breaks_the_writer_for_good(make: Make, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """F6: after one EIO of fdatasync neither sync nor append succeeds again, though the disk would; the hook that
    ends the process is called at once, also when the sync was that of a rotation."""
    ended: list[BaseException] = []
    writer = make(durability="host")
    writer._broken_hook = ended.append
    writer.append(frames("a"))
    writer.sync()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        with pytest.raises(SpoolBroken):
            writer.sync()
        assert len(ended) == 1
        with pytest.raises(SpoolBroken):
            writer.close()
        assert len(ended) == 2
    for call in (writer.sync, lambda: writer.append(frames("b"))):
        with pytest.raises(SpoolBroken):
            call()
    assert Event.JOURNAL_BROKEN in events.names()


def test_host_durability_syncs_every_file_it_leaves(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `host`, a turn is synced even if its file was rotated away before the sync of its answers came; with
    `process` nothing is synced."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    writer = make(durability="host", max_file_bytes=4096)
    for number in range(10):
        writer.append(frames(str(number), size=1000))
    writer.sync()
    assert sorted(set(synced)) == sorted(path.stat().st_ino for path in spool_files(tmp_path / "spool"))
    synced.clear()
    other = make(2, max_file_bytes=4096)
    for number in range(10):
        other.append(frames(str(number), size=1000))
    other.close()
    assert synced == []


def test_a_file_never_appears_without_its_lock(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain would take an unlocked spool file for a dead worker's: the name comes after the lock."""
    seen: list[Sequence[Path]] = []
    original = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        seen.append(spool_files(tmp_path / "spool"))
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    make().append(frames("a"))
    assert seen == [[]]


def test_a_name_is_used_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that got its name and then failed is free for the drain, which deletes it by that name: the next file must
    have another, or its records would go with it."""
    folder = tmp_path / "spool"

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    writer = make(durability="host")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UnavailableError):
        writer.append(frames("a"))
    monkeypatch.undo()
    drains = spool_files(folder)  # what a drain saw, and is about to delete
    writer.append(frames("b"))
    for path in drains:
        path.unlink(missing_ok=True)
    assert stored_ids(folder) == ["b"]


def test_a_folder_that_cannot_be_looked_at_now_is_looked_at_later(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """poll runs beside the heartbeat: out of descriptors, it raises nothing and keeps the figure it had."""
    writer = make()
    writer.append(frames("a"))
    used = writer.used_bytes

    def refuse(folder: Path) -> list[Path]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as starved:
        starved.setattr("modelyard.journal.spool.spool_files", refuse)
        writer.poll()
    assert writer.used_bytes == used > 0
    writer.poll()
    assert writer.used_bytes == spool_bytes(tmp_path / "spool")
