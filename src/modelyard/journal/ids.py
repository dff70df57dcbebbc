"""Prediction ids: unique over workers, restarts and hosts without asking anybody."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import count


def new_epoch(randomness: Callable[[int], bytes] = secrets.token_bytes) -> int:
    """64 random bits that name one life of one worker process. Two of n lives share one with a probability of
    about n² / 2⁶⁵; the drain would notice (same id, other payload)."""
    return int.from_bytes(randomness(8))


class PredictionIds:
    """26 hexadecimal digits each: the epoch and a counter of up to 2⁴⁰ predictions. Not derived from the caller or
    the clock; sorts by age within an epoch."""

    __slots__ = ("_next", "_prefix", "epoch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._prefix = f"{epoch:016x}"
        self._next = count().__next__

    def next(self) -> str:
        """The next id."""
        return f"{self._prefix}{self._next():010x}"
