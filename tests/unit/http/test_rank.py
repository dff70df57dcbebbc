"""The drain behind the workers, or beside them (P4): when it changes its place, and whom it lets pass."""

from __future__ import annotations

import os

import pytest

from modelyard.http.processes.rank import Rank


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
