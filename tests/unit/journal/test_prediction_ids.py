"""Prediction ids: unique, cheap, sorted within a process."""

from __future__ import annotations

import re

from modelyard.journal.ids import PredictionIds, new_epoch


def test_ids_are_unique_and_sorted() -> None:
    """26 hexadecimal digits, each greater than the one before, all of the same epoch."""
    ids = PredictionIds(0xABC)
    made = [ids.next() for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(re.fullmatch(r"0000000000000abc[0-9a-f]{10}", one) for one in made)


def test_two_lives_of_a_process_share_no_id() -> None:
    """The epoch has all its 64 bits from the randomness."""
    assert new_epoch(lambda size: b"\xff" * size) == 2**64 - 1
    assert new_epoch() != new_epoch()
