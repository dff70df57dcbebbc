"""Two versions beside each other: no difference where there is none, and one where there is."""

from __future__ import annotations

import random

import pytest

from modelyard.analytics.cells import Figures
from modelyard.analytics.comparison import drift, error_difference
from modelyard.analytics.scores import Scores, tally


def figures(requests: int, failures: int) -> Figures:
    return Figures(requests=requests, server_errors=failures)


def numbers(middle: float, count: int = 4000, seed: int = 1) -> Scores:
    draw = random.Random(seed)
    return tally([({"p": [draw.gauss(middle, 1.0)]}, 1) for _ in range(count)], 1.0)["p"]


def labels(share: float, count: int = 1000) -> Scores:
    good = round(count * share)
    return tally([({"label": [text]}, 1) for text in ["a"] * good + ["b"] * (count - good)], 1.0)["label"]


def test_an_interval_holds_the_difference() -> None:
    """Newcombe's own example: 56 of 70 and 48 of 80 differ by 0.2, from 0.0524 to 0.3339; without a request, none."""
    found = error_difference(figures(80, 48), figures(70, 56))
    assert found is not None
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert error_difference(figures(0, 0), figures(5, 1)) is None
    none = error_difference(figures(1000, 0), figures(1000, 0))
    assert none is not None
    assert none.low < 0 == none.difference < none.high


def test_drift_tells_moved_scores_from_chance() -> None:
    """The same distribution again is near 0; moved by a deviation it is far; labels by their shares."""
    same, moved = drift(numbers(0.0), numbers(0.0, seed=2)), drift(numbers(0.0), numbers(1.0, seed=2))
    assert same is not None
    assert moved is not None
    assert same.distance < 0.05
    assert same.stability_index < 0.02
    assert moved.distance == pytest.approx(0.383, abs=0.04)
    assert moved.stability_index > 0.25
    of_labels = drift(labels(0.5), labels(0.75))
    assert of_labels is not None
    assert of_labels.distance == pytest.approx(0.25)
    assert drift(labels(0.5), numbers(0.0)) is None
