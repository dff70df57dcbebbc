"""Counts of values in fixed bins, so that the histograms of two hours, hosts or clients add up to that of both.

The bins are those of HdrHistogram (Tene, hdrhistogram.org) with six significant bits: below 64 every whole number has
its own, from there on each power of two is cut into 32 of equal width. Whoever takes the middle of a bin for its
values errs by less than 1/64 (1.6 %), as DDSketch promises it for its logarithmic ones (Masson et al., VLDB 2019); but
these need whole numbers alone, so every database can count in them (`lower` is what its statement groups by).

Scores are counted by sign, and by their size in units of 2^-20.

A histogram is stored as pairs of bin (i16) and count (u32), little-endian, by bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from modelyard.core.types import Array

RELATIVE_ERROR = 1 / 64
EXACT_BELOW = 64
"""Whole numbers below this have a bin each."""
PER_OCTAVE = 32
MOST = 2**42
"""Larger values count as this: 51 days in microseconds."""
SCORE_UNIT = 2.0**-20
_PAIR = np.dtype([("bin", "<i2"), ("count", "<u4")])
_BITS = 6
_SPAN, _HALF = 4096, 2048
_MOST_COUNT = 2**32 - 1


def bin_of(value: int) -> int:
    """The bin of a whole number; what is out of bounds counts as the bound."""
    value = min(max(value, 0), MOST)
    exponent = max(0, value.bit_length() - _BITS)
    return PER_OCTAVE * exponent + (value >> exponent)


def lower(place: int) -> int:
    """The least whole number of a bin."""
    if place < EXACT_BELOW:
        return place
    exponent = place // PER_OCTAVE - 1
    return (place - PER_OCTAVE * exponent) << exponent


def width(place: int) -> int:
    """How many whole numbers a bin has."""
    return 1 << max(0, place // PER_OCTAVE - 1)


def middle(place: int) -> float:
    """What stands for all values of a bin."""
    return lower(place) + (width(place) - 1) / 2


def score_bin(value: float) -> int:
    """The bin of a score; negative ones have negative bins, so that bins are in the order of their values."""
    place = bin_of(int(min(abs(value) / SCORE_UNIT, MOST)))
    return -place - 1 if value < 0 else place


def score_middle(place: int) -> float:
    """What stands for all scores of a bin."""
    return -middle(-place - 1) * SCORE_UNIT if place < 0 else middle(place) * SCORE_UNIT


def packed(counts: Mapping[int, int]) -> bytes:
    """A histogram of counts by bin."""
    pairs = np.empty(len(counts), _PAIR)
    places = sorted(counts)
    pairs["bin"] = places
    pairs["count"] = [min(counts[place], _MOST_COUNT) for place in places]
    return pairs.tobytes()


def unpacked(histogram: bytes) -> dict[int, int]:
    """Its counts by bin, in the order of bins."""
    pairs = np.frombuffer(histogram, _PAIR)
    return dict(zip(pairs["bin"].tolist(), pairs["count"].tolist(), strict=True))


def merged(histograms: Sequence[bytes], groups: Array, count: int) -> list[bytes]:
    """The sums of histograms by group: `groups` has the group, from 0 to `count` - 1, of each."""
    sizes = np.fromiter((len(one) // _PAIR.itemsize for one in histograms), np.int64, len(histograms))
    pairs = np.frombuffer(b"".join(histograms), _PAIR)
    keys = np.repeat(groups.astype(np.int64), sizes) * _SPAN + pairs["bin"] + _HALF
    found, places = np.unique(keys, return_inverse=True)
    sums = np.bincount(places, weights=pairs["count"], minlength=len(found))
    whole = np.empty(len(found), _PAIR)
    whole["bin"], whole["count"] = found % _SPAN - _HALF, np.minimum(sums, _MOST_COUNT)
    ends = np.searchsorted(found, np.arange(count + 1) * _SPAN)
    return [whole[ends[group] : ends[group + 1]].tobytes() for group in range(count)]


def ranked(histogram: bytes, shares: Sequence[float]) -> list[int | None]:
    """For each share the bin that holds the value of that rank (the least that at least so large a part of all does not
    exceed); None for an empty histogram."""
    pairs = np.frombuffer(histogram, _PAIR)
    if not len(pairs):
        return [None] * len(shares)
    sums = np.cumsum(pairs["count"], dtype=np.int64)
    ranks = [max(1, math.ceil(share * int(sums[-1]))) for share in shares]
    return [int(pairs["bin"][int(np.searchsorted(sums, rank))]) for rank in ranks]


def percentiles(histogram: bytes, shares: Sequence[float]) -> list[float | None]:
    """The values of these ranks, within RELATIVE_ERROR; None for an empty histogram."""
    return [None if place is None else middle(place) for place in ranked(histogram, shares)]
