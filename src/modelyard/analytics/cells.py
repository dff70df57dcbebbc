"""What is counted of a group of requests, and how the figures of several become those of all."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import msgspec
import numpy as np

from modelyard.analytics.histogram import merged

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
GRAINS = (MINUTE_S, HOUR_S, DAY_S)
"""How long the times are that figures are kept for, the finest first."""

K = TypeVar("K", bound=Hashable)


class Figures(msgspec.Struct, frozen=True):
    """Sums over requests. `client_errors` have a status of 400 to 499, callers who left among them; `server_errors`
    500 and more. Of the answered ones (200 to 399): the sum of their latency, its largest, its histogram
    (analytics.histogram), all in microseconds from the whole request to the answer."""

    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    items: int = 0
    answered: int = 0
    total_us: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    max_us: int = 0
    latency: bytes = b""


SUMS = Figures.__struct_fields__[:-2]
"""The figures that add up."""


def fold(parts: Iterable[tuple[K, Figures]]) -> dict[K, Figures]:
    """The figures of each key, all parts together, in the order in which the keys came first."""
    keys: dict[K, int] = {}
    known = [(keys.setdefault(key, len(keys)), part) for key, part in parts]
    if not known:
        return {}
    places = np.fromiter((place for place, _ in known), np.int64, len(known))
    rows = np.array([[getattr(part, name) for name in SUMS] for _, part in known], np.int64)
    sums = np.zeros((len(keys), len(SUMS)), np.int64)
    np.add.at(sums, places, rows)
    largest = np.zeros(len(keys), np.int64)
    np.maximum.at(largest, places, [part.max_us for _, part in known])
    most = largest.tolist()
    latency = merged([part.latency for _, part in known], places, len(keys))
    return {
        key: Figures(**dict(zip(SUMS, sums[place].tolist(), strict=True)), max_us=most[place], latency=latency[place])
        for key, place in keys.items()
    }
