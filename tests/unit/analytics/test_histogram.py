"""Bins are the same everywhere, histograms add up, percentiles keep their error."""

from __future__ import annotations

import random

import numpy as np
import pytest

from modelyard.analytics.histogram import (
    EXACT_BELOW,
    MOST,
    RELATIVE_ERROR,
    bin_of,
    lower,
    merged,
    middle,
    packed,
    percentiles,
    score_bin,
    score_middle,
    unpacked,
    width,
)
from modelyard.analytics.ranges import cover
from modelyard.analytics.scores import MAX_LABELS, fold_scores, tally


def test_bins_follow_each_other_without_a_gap() -> None:
    """Each begins where the one before ends; its first, middle and last number fall into it."""
    last = bin_of(MOST)
    assert last < 2048
    for place in range(last):
        first, wide = lower(place), width(place)
        assert lower(place + 1) == first + wide
        assert {bin_of(first), bin_of(first + wide - 1), bin_of(int(middle(place)))} == {place}
    assert (bin_of(-5), bin_of(10**30)) == (0, last)


def test_the_middle_of_a_bin_is_near_all_its_values() -> None:
    """Exact below 64, within 1/64 from there on."""
    draw = random.Random(1)
    for value in [*range(EXACT_BELOW), *(int(2 ** (draw.random() * 42)) for _ in range(5000))]:
        assert abs(middle(bin_of(value)) - value) <= value * RELATIVE_ERROR
        assert value >= EXACT_BELOW or middle(bin_of(value)) == value


def test_scores_keep_sign_order_and_size() -> None:
    """Bins are in the order of their scores, negative ones too; a probability is met within 1/64 of itself."""
    draw = random.Random(2)
    values = sorted([0.0, 1.0, -1.0, 1e9, -1e9, *(draw.gauss(0, 1) for _ in range(1000)), *np.linspace(0, 1, 101)])
    places = [score_bin(value) for value in values]
    assert places == sorted(places)
    for value, place in zip(values, places, strict=True):
        if 1e-4 < abs(value) < 1e6:
            assert score_middle(place) == pytest.approx(value, rel=RELATIVE_ERROR)


def test_histograms_add_up() -> None:
    """Packed, merged by group and unpacked, the counts are those of the values together; empty ones are nothing."""
    draw = random.Random(3)
    parts = [{draw.randrange(-40, 60): draw.randrange(1, 9) for _ in range(draw.randrange(6))} for _ in range(60)]
    groups = [draw.randrange(5) for _ in parts]
    found = merged([packed(part) for part in parts], np.array(groups), 6)
    for group in range(6):
        sums: dict[int, int] = {}
        for part, mine in zip(parts, groups, strict=True):
            for place, count in part.items() if mine == group else ():
                sums[place] = sums.get(place, 0) + count
        assert unpacked(found[group]) == dict(sorted(sums.items()))


def test_percentiles_are_ranks() -> None:
    """The nearest rank; of one value that value; of none nothing."""
    exact = packed(dict.fromkeys(range(10), 1))
    assert percentiles(exact, (0.0, 0.1, 0.5, 0.51, 0.9, 1.0)) == [0, 0, 4, 5, 8, 9]
    assert percentiles(packed({7: 3}), (0.01, 0.99)) == [7, 7]
    assert percentiles(b"", (0.5,)) == [None]


def test_a_time_is_covered_without_gap_or_overlap() -> None:
    """Any time of whole minutes is made up of rows of days, hours and minutes that meet, of the coarsest allowed."""
    draw = random.Random(4)
    for _ in range(500):
        low = draw.randrange(10**5) * 60
        high = low + draw.randrange(10**4) * 60
        for coarsest in (60, 3600, 86400):
            found = list(cover(low, high, coarsest))
            assert all(a < b and a % grain == b % grain == 0 and grain <= coarsest for grain, a, b in found)
            assert [a for _, a, _ in found] + [high] * (low < high) == [low] * (low < high) + [b for _, _, b in found]
            assert len(found) <= 5


def test_labels_are_bounded() -> None:
    """The most frequent are kept by name, however many there are, and the others together; nothing is lost."""
    many = [([f"label-{n}"], 0) for n in range(200)] + [(["x" * 100], 0)]
    (scores,) = tally([({"label": value}, 1) for value, _ in many], 1.0).values()
    assert (len(scores.labels), scores.other, scores.count) == (MAX_LABELS, 201 - MAX_LABELS, 201)
    more = tally([({"label": ["label-199"]}, 1)] * 5, 2.0)["label"]
    both = fold_scores([("a", scores), ("a", more)])["a"]
    assert (both.labels["label-199"], len(both.labels), both.count) == (10, MAX_LABELS, 211)
    assert sum(both.labels.values()) + both.other == 211
