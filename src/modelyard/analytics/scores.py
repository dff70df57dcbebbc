"""What models answer, output by output: numbers in a histogram, labels by how often they came."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from modelyard.analytics.histogram import packed, score_bin, unpacked

MAX_COLUMNS = 16
"""Columns of one output that are counted."""
MAX_OUTPUTS = 64
"""Outputs of one version, each column by itself."""
MAX_LABELS = 64
"""Labels of one output; what comes beyond them is counted together."""
MAX_LABEL_CHARS = 64
MAX_NAME_CHARS = 255

K = TypeVar("K", bound=Hashable)


class Scores(msgspec.Struct, frozen=True):
    """One output of one version. `count` values were estimated from `sampled` ones; of numbers their sum, least,
    largest and histogram (analytics.histogram.score_bin); `labels` counts texts, truth values and whole numbers,
    `other` those beyond MAX_LABELS."""

    count: int = 0
    sampled: int = 0
    numbers: int = 0
    total: float = 0.0
    least: float = 0.0
    largest: float = 0.0
    bins: bytes = b""
    labels: dict[str, int] = {}
    other: int = 0


def values_of(outputs: Any, rows: int) -> Iterator[tuple[str, Any]]:
    """Output and value for each item of a record's outputs (journal.record): by name, with the column behind the name
    where there are several (`probabilities[1]`)."""
    if isinstance(outputs, list):
        for result in outputs:
            yield from _of_result(result)
    elif isinstance(outputs, dict):
        for name, value in outputs.items():
            for one in value if rows and isinstance(value, list) else (value,):
                yield from _columns(name, one)


def _of_result(result: Any) -> Iterator[tuple[str, Any]]:
    """One item's result, where each has its own: `{"output": …}`, `{"error": …}`, names and values, or a value."""
    if not isinstance(result, dict):
        yield from _columns("output", result)
    elif not result.get("error"):
        found = result.get("output", result)
        for name, value in found.items() if isinstance(found, dict) else (("output", found),):
            if name != "error":
                yield from _columns(name, value)


def _columns(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        if len(value) == 1:
            yield from _columns(name, value[0])
            return
        yield from (
            (f"{name}[{index}]", one) for index, one in enumerate(value[:MAX_COLUMNS]) if not isinstance(one, list)
        )
    elif isinstance(value, dict):
        yield from ((f"{name}.{key}", one) for key, one in list(value.items())[:MAX_COLUMNS])
    else:
        yield name, value


class _Tally:
    def __init__(self) -> None:
        self.sampled = self.numbers = self.other = 0
        self.total, self.least, self.largest = 0.0, float("inf"), float("-inf")
        self.bins: dict[int, int] = {}
        self.labels: dict[str, int] = {}

    def add(self, value: Any) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value) if abs(value) < 1e300 else 0.0
            self.sampled, self.numbers = self.sampled + 1, self.numbers + 1
            self.total += number
            self.least, self.largest = min(self.least, number), max(self.largest, number)
            place = score_bin(number)
            self.bins[place] = self.bins.get(place, 0) + 1
            if isinstance(value, int):
                self._label(str(value))
        elif isinstance(value, str | bool):
            self.sampled += 1
            self._label(str(value).lower() if isinstance(value, bool) else value)

    def _label(self, label: str) -> None:
        if label not in self.labels and (len(self.labels) >= MAX_LABELS or len(label) > MAX_LABEL_CHARS):
            self.other += 1
        else:
            self.labels[label] = self.labels.get(label, 0) + 1

    def scores(self, weight: float) -> Scores:
        def whole(count: int) -> int:
            return round(count * weight)

        return Scores(
            count=whole(self.sampled), sampled=self.sampled, numbers=whole(self.numbers), total=self.total * weight,
            least=self.least if self.numbers else 0.0, largest=self.largest if self.numbers else 0.0,
            bins=packed({place: whole(count) for place, count in self.bins.items()}),
            labels={label: whole(count) for label, count in self.labels.items()}, other=whole(self.other),
        )  # fmt: skip


def tally(records: Iterable[tuple[Any, int]], weight: float) -> dict[str, Scores]:
    """The scores of records (outputs and rows), by output; each record stands for `weight`, at least 1, of them."""
    found: dict[str, _Tally] = {}
    for outputs, rows in records:
        for name, value in values_of(outputs, rows):
            name = name[:MAX_NAME_CHARS].replace("\0", "\ufffd")  # a NUL is no text to every database
            if name in found or len(found) < MAX_OUTPUTS:
                found.setdefault(name, _Tally()).add(value)
    return {name: one.scores(weight) for name, one in found.items() if one.sampled}


def fold_scores(parts: Iterable[tuple[K, Scores]]) -> dict[K, Scores]:
    """The scores of each key, all parts together."""
    found: dict[K, Scores] = {}
    for key, part in parts:
        known = found.get(key)
        found[key] = part if known is None else _sum(known, part)
    return found


def _sum(one: Scores, two: Scores) -> Scores:
    labels = added(one.labels, two.labels)
    kept = dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_LABELS])
    numbered = [part for part in (one, two) if part.numbers]
    return Scores(
        count=one.count + two.count, sampled=one.sampled + two.sampled, numbers=one.numbers + two.numbers,
        total=one.total + two.total, least=min((part.least for part in numbered), default=0.0),
        largest=max((part.largest for part in numbered), default=0.0),
        bins=packed(added(unpacked(one.bins), unpacked(two.bins))), labels=kept,
        other=one.other + two.other + sum(labels.values()) - sum(kept.values()),
    )  # fmt: skip


def added(one: Mapping[K, int], two: Mapping[K, int]) -> dict[K, int]:
    """Counts of both together."""
    return {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
