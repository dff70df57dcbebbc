"""Analytics as routes and commands ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from modelyard.analytics.cells import Figures
from modelyard.analytics.comparison import Drift, Interval, drift, error_difference
from modelyard.analytics.ports import INTERVALS, NAMES, AnalyticsStore, Counted, Scored, Selection
from modelyard.analytics.ranges import SPARE_S, minutes_from
from modelyard.analytics.rolling import Roller
from modelyard.analytics.scores import Scores
from modelyard.core.clock import Clock
from modelyard.core.errors import InvalidRequestError
from modelyard.core.lease import Leases


class Compared(msgspec.Struct, frozen=True):
    """Two versions of a model in the same time: the figures of both, the difference of their error rates, and for each
    output the scores of both (None where one has none) with their drift."""

    since: int
    until: int
    base: Figures
    other: Figures
    errors: Interval | None
    outputs: dict[str, tuple[Scores | None, Scores | None, Drift | None]]
    pending: int


class AnalyticsDesk:
    """Analytics over one store."""

    def __init__(self, store: AnalyticsStore, leases: Leases, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._roller = Roller(store, leases, clock)

    def count(self, selection: Selection, by: Sequence[str], interval: str | None) -> Counted:
        """Figures by some of NAMES and one of INTERVALS; InvalidRequestError("parameter_invalid")."""
        _check_time(selection)
        _check_names(by)
        if interval is not None and interval not in INTERVALS:
            raise _wrong("interval", f"`{interval[:40]}` is no interval.", ", ".join(INTERVALS), interval, "hour")
        now = self._clock.now()
        if interval == "minute" and selection.since < minutes_from(now) - SPARE_S:
            wanted = "`hour` or `day`, or a later `since`"
            raise _wrong("interval", "Figures by the minute are kept for a day.", wanted, interval, "hour")
        return self._store.count(selection, by, INTERVALS[interval] if interval else None, now)

    def scores(self, selection: Selection) -> Scored:
        """Scores of the versions of one model; InvalidRequestError("parameter_invalid")."""
        _check_time(selection)
        return self._store.scores(selection, self._clock.now())

    def compare(self, selection: Selection, base: str, other: str) -> Compared:
        """Two versions of the selection's model; InvalidRequestError("parameter_invalid")."""
        counted = self.count(selection, ("version",), None)
        scored = self.scores(selection)
        one, two = (counted.groups.get((version,), Figures()) for version in (base, other))
        names = sorted({output for _, version, output in scored.outputs if version in (base, other)})
        of_version = {(version, output): scores for (_, version, output), scores in scored.outputs.items()}
        pairs = {name: (of_version.get((base, name)), of_version.get((other, name))) for name in names}
        outputs = {name: (a, b, None if a is None or b is None else drift(a, b)) for name, (a, b) in pairs.items()}
        difference = error_difference(one, two)
        return Compared(counted.since, counted.until, one, two, difference, outputs, counted.pending)

    def refresh(self, going_on: Callable[[], bool] = lambda: True) -> int:
        """Rolls up what waits, unless another process does; how many minutes that were."""
        return self._roller.run(going_on)


def _check_time(selection: Selection) -> None:
    if not selection.since < selection.until:
        raise _wrong("since", "The time ends before it begins.", "a time before `until`", str(selection.since), "24h")


def _check_names(by: Sequence[str]) -> None:
    for name in by:
        if name not in NAMES:
            raise _wrong("by", f"Figures are not told apart by `{name[:40]}`.", ", ".join(NAMES), name, "model")
    if len(set(by)) < len(by):
        raise _wrong("by", "A name is there twice.", "each name once", ",".join(by), "model,version")


def _wrong(field: str, message: str, expected: str, got: str, example: str) -> InvalidRequestError:
    return InvalidRequestError(
        "parameter_invalid", message, field=field, expected=expected, got=got[:80], example=example
    )
