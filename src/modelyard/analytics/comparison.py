"""One version beside another: what changed, and whether it can be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from modelyard.analytics.cells import Figures
from modelyard.analytics.histogram import ranked, unpacked
from modelyard.analytics.scores import K, Scores, added

Z = 1.959964
"""The normal quantile of a 95 % interval."""
SHARES = 10
"""Parts of the baseline that the stability index is taken over."""
_LEAST_SHARE = 1e-4
"""What an empty part counts as, so that its logarithm exists."""


class Interval(msgspec.Struct, frozen=True):
    """A difference and its 95 % interval."""

    difference: float
    low: float
    high: float


class Drift(msgspec.Struct, frozen=True):
    """How far two distributions are apart: the largest distance of their cumulative shares (Kolmogorov-Smirnov; of
    labels half the sum of all differences), and the population stability index, of which below 0.1 is called little
    and above 0.25 much."""

    distance: float
    stability_index: float


def error_rate(figures: Figures) -> float | None:
    """Failures of ours (500 and more) of all requests; None without any."""
    return figures.server_errors / figures.requests if figures.requests else None


def error_difference(base: Figures, other: Figures) -> Interval | None:
    """The other's error rate less the base's, with Newcombe's interval (hybrid score, Statistics in Medicine 17,
    1998), which holds for rates near 0; None where one has no request."""
    if not base.requests or not other.requests:
        return None
    p, low_p, high_p = _wilson(other.server_errors, other.requests)
    q, low_q, high_q = _wilson(base.server_errors, base.requests)
    difference = p - q
    below, above = math.hypot(p - low_p, high_q - q), math.hypot(high_p - p, q - low_q)
    return Interval(difference, difference - below, difference + above)


def _wilson(failures: int, count: int) -> tuple[float, float, float]:
    p = failures / count
    middle, spread = p + Z * Z / (2 * count), Z * math.sqrt(p * (1 - p) / count + Z * Z / (4 * count * count))
    whole = 1 + Z * Z / count
    return p, (middle - spread) / whole, (middle + spread) / whole


def drift(base: Scores, other: Scores) -> Drift | None:
    """How far an output's scores moved; None where one has none. Outputs that are labels alone are compared by them."""
    if base.numbers and other.numbers and not (base.labels and other.labels and not base.other and not other.other):
        return _drift_of_numbers(base.bins, other.bins)
    if base.labels and other.labels:
        return _drift_of_labels({**base.labels, "": base.other}, {**other.labels, "": other.other})
    return None


def _drift_of_numbers(base: bytes, other: bytes) -> Drift:
    ones, twos = _shares(unpacked(base)), _shares(unpacked(other))
    distance = one_sum = two_sum = 0.0
    for place in sorted({**ones, **twos}):
        one_sum, two_sum = one_sum + ones.get(place, 0.0), two_sum + twos.get(place, 0.0)
        distance = max(distance, abs(one_sum - two_sum))
    borders = sorted({place for place in ranked(base, [n / SHARES for n in range(1, SHARES)]) if place is not None})
    return Drift(distance, _index(_parted(ones, borders), _parted(twos, borders)))


def _drift_of_labels(base: Mapping[str, int], other: Mapping[str, int]) -> Drift:
    ones, twos = _shares(base), _shares(other)
    labels = list(added(base, other))
    one, two = ([shares.get(label, 0.0) for label in labels] for shares in (ones, twos))
    return Drift(sum(abs(p - q) for p, q in zip(one, two, strict=True)) / 2, _index(one, two))


def _shares(counts: Mapping[K, int]) -> dict[K, float]:
    whole = sum(counts.values())
    return {key: count / whole for key, count in counts.items()}


def _parted(shares: Mapping[int, float], borders: list[int]) -> list[float]:
    """The shares up to each border, and behind the last."""
    parts = [0.0] * (len(borders) + 1)
    for place, share in shares.items():
        parts[sum(place > border for border in borders)] += share
    return parts


def _index(base: list[float], other: list[float]) -> float:
    pairs = ((max(p, _LEAST_SHARE), max(q, _LEAST_SHARE)) for p, q in zip(base, other, strict=True))
    return sum((q - p) * math.log(q / p) for p, q in pairs)
