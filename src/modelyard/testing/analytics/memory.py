"""Figures of the prediction log in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from modelyard.analytics.cells import HOUR_S, MINUTE_S, Figures, fold
from modelyard.analytics.histogram import bin_of, packed
from modelyard.analytics.ports import NAMES, Counted, Rolled, Scored, Selection
from modelyard.analytics.ranges import floor, rounded
from modelyard.analytics.scores import fold_scores, tally
from modelyard.core.lease import Fence
from modelyard.journal.ports import items_of
from modelyard.storage.prediction_row import COLUMNS
from modelyard.testing.clock import MemoryLeases
from modelyard.testing.records import MemoryRecordSink


class MemoryAnalyticsStore:
    """analytics.ports.AnalyticsStore over what a MemoryRecordSink holds: it counts the log itself each time, and keeps
    of its rollups only which records they were made of."""

    def __init__(self, sink: MemoryRecordSink, leases: MemoryLeases) -> None:
        self._sink = sink
        self._leases = leases
        self._rolled: dict[int, frozenset[str]] = {}

    def count(self, selection: Selection, by: Sequence[str], interval_s: int | None, now: float) -> Counted:
        """Figures by group."""
        low, high = rounded(selection.since, selection.until, now)

        def group(row: dict[str, Any]) -> tuple[int | str, ...]:
            start = (floor(row["at"] / 1e6, interval_s),) if interval_s else ()
            return (*start, *(row[name] for name in by))

        parts = ((group(row), _figures(row)) for row in self._matching(selection, low, high, NAMES))
        return Counted(low, high, fold(parts), 0)

    def scores(self, selection: Selection, now: float) -> Scored:
        """Scores by output."""
        low, high = rounded(selection.since, selection.until, now)
        answered = (row for row in self._matching(selection, low, high, NAMES[1:3]) if 200 <= row["status"] < 400)
        parts = [
            ((row["model"], row["version"], output), scores)
            for row in answered
            for output, scores in tally([(orjson.loads(row["outputs"]), row["rows"])], 1.0).items()
        ]
        return Scored(low, high, fold_scores(parts), 0)

    def waiting(self, now: float) -> int:
        """How many minutes have other records than when they were rolled up."""
        return len(self._changed(now))

    def roll(self, now: float, fence: Fence | None = None) -> Rolled:
        """Looks at the newest hour that waits."""
        self._leases.check(fence)
        changed = self._changed(now)
        if not changed:
            return Rolled(0, False)
        hour = floor(max(changed), HOUR_S)
        done = {minute: ids for minute, ids in changed.items() if minute >= hour}
        self._rolled.update(done)
        return Rolled(len(done), len(changed) > len(done))

    def _changed(self, now: float) -> dict[int, frozenset[str]]:
        found: dict[int, set[str]] = {minute: set() for minute in self._rolled}
        for row in self._rows():
            found.setdefault(floor(row["at"] / 1e6, MINUTE_S), set()).add(row["id"])
        over = {minute: frozenset(ids) for minute, ids in found.items() if minute + MINUTE_S <= now - 5}
        return {minute: ids for minute, ids in over.items() if self._rolled.get(minute, frozenset()) != ids}

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(COLUMNS, row, strict=True)) for row in tuple(self._sink.rows.values()))

    def _matching(self, wanted: Selection, low: int, high: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for row in self._rows():
            named = all(getattr(wanted, name) in (None, row[name]) for name in names)
            if named and low * 1_000_000 <= row["at"] < high * 1_000_000:
                yield row


def _figures(row: dict[str, Any]) -> Figures:
    status = row["status"]
    answered = 200 <= status < 400
    return Figures(
        requests=1, client_errors=400 <= status < 500, server_errors=status >= 500,
        items=items_of(row["rows"], status), answered=answered, total_us=row["total_us"] * answered,
        request_bytes=row["request_bytes"], answer_bytes=row["answer_bytes"], max_us=row["total_us"] * answered,
        latency=packed({bin_of(row["total_us"]): 1}) if answered else b"",
    )  # fmt: skip
