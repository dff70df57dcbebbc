"""A backup waits for what the spool held when it began, no longer than it may, and counts what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.backup import waiting
from modelyard.backup.create import create
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.frame import encode_frame
from modelyard.journal.spool import SpoolWriter
from modelyard.testing import FakeClock, prediction_record

FILE = f"{1:016x}-{0:08d}.spool"


def written(spool: Path, *turns: int) -> list[int]:
    """A spool file of turns of so many records; the offset behind each turn."""
    writer = SpoolWriter(spool, 1, JournalSettings(), FakeClock())
    ends = []
    for number, records in enumerate(turns):
        frames = [encode_frame(prediction_record(f"s{number}-{n}").header, b"{}", b"{}") for n in range(records)]
        writer.append([part for frame in frames for part in frame])
        ends.append((spool / FILE).stat().st_size)
    writer.close()
    return ends


def test_a_stored_file_is_awaited_no_longer(tmp_path: Path) -> None:
    """Reached by the database, gone, or shorter than it was: nothing waits. Behind by one byte: it waits."""
    (end,) = written(tmp_path, 2)
    marks = waiting.mark(tmp_path)
    assert marks == {FILE: end}
    assert waiting.behind(tmp_path, marks, lambda _: end) == {}
    assert waiting.behind(tmp_path, marks, lambda _: end - 1) == marks
    assert waiting.behind(tmp_path, {FILE: end + 100}, lambda _: end) == {}
    (tmp_path / FILE).unlink()
    assert waiting.behind(tmp_path, marks, lambda _: 0) == {}


def test_what_came_later_is_not_awaited(tmp_path: Path) -> None:
    """Only what was there at the mark counts, however much is written meanwhile."""
    first, second, _last = written(tmp_path, 2, 3, 4)
    assert waiting.records(tmp_path, {FILE: second}, lambda _: 0) == 5
    assert waiting.records(tmp_path, {FILE: second}, lambda _: first) == 3
    assert waiting.behind(tmp_path, {FILE: first}, lambda _: first) == {}


def test_the_wait_is_bounded(tmp_path: Path) -> None:
    """It ends as soon as the database has all, and at the latest after its time."""
    (end,) = written(tmp_path, 1)
    clock, stored = FakeClock(), [0]

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        stored[0] += end // 2 + 1

    assert waiting.settled(tmp_path, {FILE: end}, lambda _: stored[0], clock, 10, pause) == {}
    assert waiting.settled(tmp_path, {FILE: end}, lambda _: 0, clock, 10, clock.advance) == {FILE: end}


def test_a_server_that_is_gone_left_nothing_out(settings: Settings, tmp_path: Path) -> None:
    """P1: without a server the spool is stored first."""
    written(settings.data / "spool", 2, 3)
    made = create(settings, tmp_path / "out", FakeClock(), 0.0)
    assert (made.waiting, made.counts["records"]) == (0, 3 + 5)


def test_what_waits_is_counted(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that the database did not have in time are said, not left out in silence."""
    written(settings.data / "spool", 2, 3)
    monkeypatch.setattr("modelyard.backup.waiting.store_rest", lambda *_: None)  # as a drain that does not come
    made = create(settings, tmp_path / "out", FakeClock(), 0.0)
    assert (made.waiting, made.counts["records"]) == (5, 3)
