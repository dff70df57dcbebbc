"""Whose run killed the workers: what they note, how the parent decides, and what is kept of it (K6, P11)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelyard.http.processes.board import RUNS, Board
from modelyard.http.processes.health import RunNotes, Suspects, UnhealthyVersions, version_token
from modelyard.testing import FakeClock, StubModel

A, B = version_token("tree", "1"), version_token("tree", "2")
ONE = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A fresh board with a worker in slot 3."""
    made = Board.create(tmp_path / "board")
    made.join(3)
    yield made
    made.close()


def test_a_token_stands_for_both_names() -> None:
    """Model and version together make the token; moving a letter from one to the other makes another."""
    assert len({A, B, version_token("tree1", ""), version_token("tre", "e1"), version_token("", "tree1")}) == 5
    assert 0 < A < 2**64


def test_a_run_is_on_the_board_while_it_lasts(board: Board, tmp_path: Path) -> None:
    """K6: on the loop's thread, on others, and while loading: the parent sees the versions, and nothing afterwards;
    a run that raises leaves nothing either."""
    notes = RunNotes(board.runs(3), UnhealthyVersions(tmp_path / "ill"), FakeClock())
    seen: list[frozenset[int]] = []
    model = notes.watched("tree", "1", StubModel(before_run=lambda _: seen.append(board.running(3))))
    assert model.run(ONE, ())["y"].tolist() == [[2.0, 2.0]]
    other = threading.Thread(target=lambda: model.run(ONE, ()))
    with notes.loading("tree", "2"):
        other.start()
        other.join(10)
    assert seen == [frozenset({A}), frozenset({A, B})]
    failing = notes.watched("tree", "1", StubModel(fails_when=lambda _: True))
    with pytest.raises(Exception, match="told to fail"):
        failing.run(ONE, ())
    assert board.running(3) == frozenset()


def test_more_runs_than_words_are_run_all_the_same(board: Board, tmp_path: Path) -> None:
    """With every word taken a run is not noted; nothing else happens to it, and the words come back."""
    notes = RunNotes(board.runs(3), UnhealthyVersions(tmp_path / "ill"), FakeClock())
    begun, go = threading.Barrier(RUNS + 3), threading.Event()

    def wait(_: object) -> None:
        begun.wait(10)
        go.wait(10)

    model = notes.watched("tree", "1", StubModel(before_run=wait))
    done: list[object] = []
    threads = [threading.Thread(target=lambda: done.append(model.run(ONE, ()))) for _ in range(RUNS + 2)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    assert board.running(3) == frozenset({A})
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(done) == RUNS + 2
    assert board.running(3) == frozenset()
    assert notes.longest_run_s() == 0.0


def test_a_run_that_does_not_end_is_seen(board: Board, tmp_path: Path) -> None:
    """The oldest run off the loop tells its age; loads have no such bound."""
    clock = FakeClock()
    notes = RunNotes(board.runs(3), UnhealthyVersions(tmp_path / "ill"), clock)
    begun, go = threading.Event(), threading.Event()
    model = notes.watched("tree", "1", StubModel(before_run=lambda _: (begun.set(), go.wait(10), None)[2]))
    thread = threading.Thread(target=lambda: model.run(ONE, ()))
    clock.advance(1.0)
    thread.start()
    assert begun.wait(10)
    clock.advance(61.0)
    assert notes.longest_run_s() == pytest.approx(61.0)
    go.set()
    thread.join(10)
    assert notes.longest_run_s() == 0.0


def test_five_deaths_within_a_minute_decide() -> None:
    """K6: the fifth within the minute finds the version guilty, and starts its count anew; a death that is older than
    a minute no longer counts."""
    suspects = Suspects(deaths=5, within_s=60.0)
    ran = frozenset({A})
    assert [suspects.note(ran, at) for at in (0.0, 20.0, 40.0, 60.5, 61.0)] == [[]] * 5
    assert suspects.note(ran, 61.5) == [A]
    assert [suspects.note(ran, at) for at in (62.0, 63.0, 64.0, 65.0)] == [[]] * 4
    assert suspects.note(ran, 66.0) == [A]


def test_a_hang_counts_twice_and_nothing_blames_nobody() -> None:
    """A hang weighs as two deaths; a worker that died idle accuses no version."""
    suspects = Suspects(deaths=5, within_s=60.0)
    assert [suspects.note(frozenset({A}), at, counts=2) for at in (0.0, 13.0)] == [[], []]
    assert all(suspects.note(frozenset(), 20.0) == [] for _ in range(20))
    assert suspects.note(frozenset({A}), 26.0, counts=2) == [A]


def test_a_neighbour_that_ran_beside_it_goes_free() -> None:
    """A slow version runs beside the fast one that kills: it is there at most deaths, the guilty at all of them."""
    suspects = Suspects(deaths=5, within_s=60.0)
    both, guilty = frozenset({A, B}), frozenset({A})
    assert [suspects.note(ran, float(at)) for at, ran in enumerate((both, both, guilty, both))] == [[]] * 4
    assert suspects.note(both, 5.0) == [A]


def test_two_that_cannot_be_told_apart_go_both_in_the_end() -> None:
    """If every death had both, the count goes on to twice the bound; then both are out: the others must live."""
    suspects = Suspects(deaths=5, within_s=60.0)
    both = frozenset({A, B})
    assert [suspects.note(both, float(at)) for at in range(9)] == [[]] * 9
    assert sorted(suspects.note(both, 9.0)) == sorted([A, B])


def test_marks_stay_until_revived(tmp_path: Path) -> None:
    """A mark is a file that others read at once; reviving it twice is no error, and a broken folder marks nothing."""
    marks, others = UnhealthyVersions(tmp_path / "ill"), UnhealthyVersions(tmp_path / "ill")
    assert others.tokens() == frozenset()
    marks.mark(A, "tree", "1", 5, 1000.0)
    assert others.among([("tree", "1"), ("tree", "2")]) == frozenset({("tree", "1")})
    assert others.revive("tree", "1")
    assert not marks.revive("tree", "1")
    assert marks.tokens() == frozenset()
