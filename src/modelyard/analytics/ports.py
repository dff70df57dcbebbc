"""What analytics needs from the world. Times are UNIX seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from modelyard.analytics.cells import DAY_S, HOUR_S, MINUTE_S, Figures
from modelyard.analytics.scores import Scores
from modelyard.core.lease import Fence

NAMES = ("endpoint", "model", "version", "client")
"""What figures can be told apart by."""
INTERVALS: Mapping[str, int] = {"minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S}
"""And by time; seconds, UTC."""


class Selection(msgspec.Struct, frozen=True):
    """Which requests: every field that is set must match. `since` inclusive, `until` exclusive; both are widened to
    whole minutes, or hours where they are longer ago than a day (analytics.ranges)."""

    since: float
    until: float
    model: str | None = None
    version: str | None = None
    client: str | None = None
    endpoint: str | None = None


class Counted(msgspec.Struct, frozen=True):
    """Figures from `since` to `until`, by group: where the interval begins, if one was asked for, then the names that
    were. `pending`: minutes of that time whose newest changes are not in yet."""

    since: int
    until: int
    groups: dict[tuple[int | str, ...], Figures]
    pending: int


class Scored(msgspec.Struct, frozen=True):
    """Scores by (model, version, output); otherwise as Counted."""

    since: int
    until: int
    outputs: dict[tuple[str, str, str], Scores]
    pending: int


class Rolled(msgspec.Struct, frozen=True):
    """What one step did: so many minutes were rolled up; `more` wait."""

    minutes: int
    more: bool


class AnalyticsStore(Protocol):
    """Figures of the prediction log, and the rollups that make them quick.

    A rollup is nothing but what the log says of a minute, an hour or a day. Whatever changes the log (records, also
    late ones; retention; deletion by subject) notes the minutes that it touched in its own transaction, and `roll`
    makes them anew. So rollups follow the log, and hold no subject.
    """

    def count(self, selection: Selection, by: Sequence[str], interval_s: int | None, now: float) -> Counted:
        """Figures by some of NAMES and one of INTERVALS; InvalidRequestError("parameter_invalid") where that would be
        more than a query may take."""

    def scores(self, selection: Selection, now: float) -> Scored:
        """Scores, of all clients and endpoints alike; the selection's are passed over."""

    def waiting(self, now: float) -> int:
        """How many minutes that are over wait to be rolled up."""

    def roll(self, now: float, fence: Fence | None = None) -> Rolled:
        """Rolls up the newest hour that has such minutes. May be cut off anywhere, and done again.
        ConflictError("lease_lost") if the fence is not the latest."""
