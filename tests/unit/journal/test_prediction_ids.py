"""Prediction ids: unique, cheap, sorted within a process."""

from __future__ import annotations

import re

from modelyard.journal.ids import STEP_S, PredictionIds, first_id, new_epoch

T = 1_800_000_000.0


def test_ids_are_unique_and_sorted() -> None:
    """26 characters, each greater than the one before, all of the same epoch, within one moment and over many."""
    clock = [T]
    ids = PredictionIds(0xABC, lambda: clock[0])
    made = []
    for _ in range(1000):
        made.append(ids.next())
        clock[0] += 0.1
    assert made == sorted(set(made))
    assert all(re.fullmatch(r"p[0-9a-f]{7}000000000abc[0-9a-f]{6}", one) for one in made)


def test_a_clock_that_is_set_back_repeats_no_id() -> None:
    """Neither back by a day, nor in steps: they stay unique and in order."""
    clock = [T]
    ids = PredictionIds(1, lambda: clock[0])
    made = [ids.next()]
    for back_s in (1, 86_400, -100, 50):
        clock[0] -= back_s
        made += [ids.next() for _ in range(100)]
    assert made == sorted(set(made))


def test_an_id_tells_its_day() -> None:
    """An id lies between the first ones of its time and of STEP_S later; days are cut exactly."""
    assert 86_400 % STEP_S == 0
    for at_s in (0.0, T, T + 0.5, 2**32 - 17):
        made = PredictionIds(2**64 - 1, lambda at_s=at_s: at_s).next()
        assert first_id(at_s) <= made < first_id(at_s + STEP_S)
    assert first_id(-1.0) == first_id(0.0)
    assert first_id(0.0) > "f" * 26  # all ids of programs before are less


def test_two_lives_of_a_process_share_no_id() -> None:
    """The epoch has all its 64 bits from the randomness."""
    assert new_epoch(lambda size: b"\xff" * size) == 2**64 - 1
    assert new_epoch() != new_epoch()
