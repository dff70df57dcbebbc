"""The drain behind the workers, or beside them (P4): when it changes its place, and whom it lets pass."""

from __future__ import annotations

import os

import pytest

from modelyard.http.processes.rank import LOOK_EVERY, MOST_REST_S, Rank, _run_and_wait_ns


@pytest.fixture
def yields(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the times that the core was given away."""
    given: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: given.append(1))
    return given


def test_an_equal_gives_way_no_longer(yields: list[int]) -> None:
    """Behind the workers it lets them pass whenever it is asked to; once the spool is half full it does not, or it
    would get nothing; a quarter full, it does again."""
    places: list[bool] = []
    rank = Rank(120.0, places.append)
    rank.give_way()
    rank.judge(0.51, 0.0)
    rank.give_way()
    rank.judge(0.3, 0.0)
    rank.give_way()
    assert (len(yields), places) == (1, [True, False])
    rank.judge(0.24, 0.0)
    rank.give_way()
    assert (len(yields), places) == (2, [True, False, True])


def test_an_old_record_makes_it_an_equal_too() -> None:
    """Until the oldest is half as old again."""
    places: list[bool] = []
    rank = Rank(120.0, places.append)
    for age_s in (119.0, 121.0, 61.0, 59.0):
        rank.judge(0.0, age_s)
    assert places == [True, False, True]


class Core:
    """What the kernel counts, and the rests that were taken, in seconds."""

    def __init__(self) -> None:
        self.ran = self.waited = 0
        self.rests: list[float] = []

    def rank(self) -> Rank:
        return Rank(120.0, lambda _: None, lambda: (self.ran, self.waited), self.rests.append)

    def work(self, rank: Rank, ran_ms: float, waited_ms: float) -> None:
        """A hundred records, which took and waited so long."""
        self.ran += int(ran_ms * 1e6)
        self.waited += int(waited_ms * 1e6)
        for _ in range(LOOK_EVERY):
            rank.between_records()


def test_it_rests_where_the_workers_need_the_core() -> None:
    """Who waited longer than it ran rests four times as long as it ran, a quarter of a second at most; who waited less
    goes on; each look counts from the one before."""
    core = Core()
    rank = core.rank()
    core.work(rank, 3, 2)
    assert core.rests == []
    core.work(rank, 3, 4)
    assert core.rests == [pytest.approx(0.012)]
    core.work(rank, 200, 900)
    assert core.rests[1:] == [MOST_REST_S]
    core.work(rank, 3, 2)
    assert len(core.rests) == 2


def test_an_equal_never_rests() -> None:
    """A spool that is half full is emptied, whoever waits."""
    core = Core()
    rank = core.rank()
    rank.judge(0.6, 0.0)
    core.work(rank, 1, 100)
    assert core.rests == []


def test_the_kernel_counts_it() -> None:
    """The real counts: a thread that works for a while ran longer than before."""
    before = _run_and_wait_ns()
    sum(range(2_000_000))
    after = _run_and_wait_ns()
    assert after[0] > before[0] or (before, after) == ((0, 0), (0, 0))
