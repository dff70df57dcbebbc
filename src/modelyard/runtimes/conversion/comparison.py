"""How far the answers of two models are apart, and how long each takes for a row."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import msgspec
import numpy as np

from modelyard.core.clock import Clock
from modelyard.core.types import DATATYPES, Array, LoadedModel

ROUNDS = 50
"""Runs of one row that a time is the median of."""


class Comparison(msgspec.Struct, frozen=True):
    """`largest` is the greatest distance of two numbers, relative above 1 and absolute below; `labels_differ` the
    rows with another label that the probabilities do not excuse. Times of one row are medians, in microseconds."""

    rows: int
    tolerance: float
    largest: float
    labels_differ: int
    before_us: float
    after_us: float

    @property
    def agrees(self) -> bool:
        """Whether every answer is within the tolerance. NaN is not."""
        return self.largest <= self.tolerance and self.labels_differ == 0

    @property
    def faster(self) -> float:
        """How many times faster one row is afterwards."""
        return self.before_us / max(self.after_us, 1e-3)


def compare(before: LoadedModel, after: LoadedModel, rows: Array, tolerance: float, clock: Clock) -> Comparison:
    """Both models on the same rows, outputs by their order; each gets them in its own datatype, as callers would send
    them: what ONNX loses by rounding a row is a difference too."""
    old, new = (_answers(model, rows) for model in (before, after))
    largest, labels = 0.0, 0
    for name, other in zip(old, new.values(), strict=True):
        if name == "label":
            labels = _labels_differ(old, other, tolerance)
        else:
            largest = max(largest, _distance(old[name], other))
    times = [_row_us(model, rows[:1], clock) for model in (before, after)]
    return Comparison(len(rows), tolerance, largest, labels, times[0], times[1])


def _feed(model: LoadedModel, rows: Array) -> dict[str, Array]:
    given = model.signature.inputs[0]
    return {given.name: rows.astype(DATATYPES[given.datatype])}


def _answers(model: LoadedModel, rows: Array) -> Mapping[str, Array]:
    found = model.run(_feed(model, rows), ())
    return {spec.name: found[spec.name] for spec in model.signature.outputs}


def _distance(one: Array, other: Array) -> float:
    one, other = (np.asarray(each, dtype=np.float64).reshape(len(each), -1) for each in (one, other))
    if one.shape != other.shape:
        return float("inf")
    both_missing = np.isnan(one) & np.isnan(other)
    apart = np.abs(one - other) / np.maximum(1.0, np.abs(one))
    apart = np.where(both_missing | (one == other), 0.0, apart)
    return float("inf") if np.isnan(apart).any() else float(apart.max(initial=0.0))


def _labels_differ(old: Mapping[str, Array], labels: Array, tolerance: float) -> int:
    """Rows whose label is another one, without those where both classes are equally probable within the tolerance."""
    differ = np.flatnonzero(old["label"] != labels)
    scores = old.get("probabilities")
    if scores is None or scores.shape[1] < 2:
        return len(differ)
    margins = np.sort(scores[differ], axis=1)
    return int((margins[:, -1] - margins[:, -2] > tolerance).sum())


def _row_us(model: LoadedModel, row: Array, clock: Clock) -> float:
    fed = _feed(model, row)
    model.run(fed, ())
    times = []
    for _ in range(ROUNDS):
        begun = clock.monotonic()
        model.run(fed, ())
        times.append(clock.monotonic() - begun)
    return median(times) * 1e6
