"""analytics.ports.AnalyticsStore over a database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from modelyard.analytics.cells import DAY_S, HOUR_S, MINUTE_S, Figures, fold
from modelyard.analytics.ports import NAMES, Counted, Rolled, Scored, Selection
from modelyard.analytics.ranges import OPEN_S, SPARE_S, cover, floor, minutes_from, rounded
from modelyard.analytics.scores import Scores, fold_scores
from modelyard.core.errors import InvalidRequestError
from modelyard.core.lease import Fence
from modelyard.storage.sql import schema
from modelyard.storage.sql.analytics import cells, pending, rows
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence

MAX_CELLS = 100_000
"""So many rollups are read for one answer: about 90 days by the hour of 45 versions, or by the day of 1,000 groups."""
SAMPLE = 500
"""Answers of a version and minute that scores are estimated from."""
MOST_COUNTED = 100_000
"""So many requests are counted in the log itself for one answer, which takes SQLite a sixth of a second of a core; the
minutes of the others wait for the next rollup."""
MINUTES_AT_ONCE = 60
"""Minutes that are written in one transaction, which nobody can write beside."""
STEP_S = 20.0
"""A step of old hours ends after so long: a lease lasts for several."""
SETTLE_S = 5
"""A minute is over when the drain had so much time for its last records; what comes later is a correction."""

_Unit = tuple[cells.Piece, list[cells.Cell], list[cells.ScoreCell]]
"""What is written for a minute or an hour."""


class SqlAnalyticsStore:
    """analytics.ports.AnalyticsStore over a database."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic

    def count(self, selection: Selection, by: Sequence[str], interval_s: int | None, now: float) -> Counted:
        """Figures by group: rollups, and the log for the minutes that have none yet."""
        low, high = rounded(selection.since, selection.until, now)
        with self._database.survey() as connection:
            opened = _open_from(connection, high, now)
            found = _kept(connection, selection, by, low, min(high, opened), interval_s)
            counted = _countable(connection, max(low, opened), high, _names(selection))
            if max(low, opened) < counted:
                found += _counted(connection, selection, max(low, opened), counted, interval_s)
            waiting = _waiting(connection, low, opened, counted, high)
        groups = fold((_group(place, by, interval_s), figures) for place, figures in found)
        return Counted(low, high, groups, waiting)

    def scores(self, selection: Selection, now: float) -> Scored:
        """Scores by output: rollups, and the log for the minutes that have none yet."""
        low, high = rounded(selection.since, selection.until, now)
        table = schema.score_rollups
        wanted = cells.named(table, {"model": selection.model, "version": selection.version})
        with self._database.survey() as connection:
            opened = _open_from(connection, high, now)
            covered = list(cover(low, min(high, opened)))
            found = (
                cells.read_score_cells(connection, cells.pieces(table, covered), *wanted, most=MAX_CELLS + 1)
                if covered else []
            )  # fmt: skip
            _check(len(found))
            counted = _countable(connection, max(low, opened), high, _names(selection))
            if max(low, opened) < counted:
                known = rows.count_rows(connection, max(low, opened), counted, _names(selection))
                found += _sampled(connection, max(low, opened), counted, known)
            waiting = _waiting(connection, low, opened, counted, high)
        return Scored(low, high, fold_scores((place[1:], scores) for place, scores in found), waiting)

    def waiting(self, now: float) -> int:
        """How many minutes wait."""
        with self._database.survey() as connection:
            return pending.waiting_before(connection, _over(now))

    def roll(self, now: float, fence: Fence | None = None) -> Rolled:
        """Rolls up the newest minutes that wait, of one day: an hour of minutes from the log, the hours from their
        minutes, the day from its hours. Hours of long ago, whose minutes are not kept, come from the log."""
        with self._database.write(holds_appends=True) as connection:
            check_fence(connection, fence)
            minutes = pending.take_newest(connection, _over(now), DAY_S // MINUTE_S)
        if not minutes:
            return Rolled(0, False)
        kept_from = minutes_from(now) - SPARE_S
        by_minute = self._whole([minute for minute in minutes if minute >= kept_from][:MINUTES_AT_ONCE])
        if by_minute:
            made, done = [self._from_log(MINUTE_S, minute) for minute in by_minute], by_minute
        else:
            made, done = self._hours_from_log(minutes)
        with self._database.write() as connection:
            check_fence(connection, fence)
            for piece, figures, scores in made:
                cells.write_cells(connection, piece, figures)
                cells.write_score_cells(connection, piece, scores)
            for hour in _hours(by_minute):
                _roll_finer(connection, HOUR_S, hour, MINUTE_S)
            _roll_finer(connection, DAY_S, floor(minutes[0], DAY_S), HOUR_S)
            pending.give_back(connection, done)
            cells.drop_before(connection, MINUTE_S, kept_from)
        return Rolled(len(done), self.waiting(now) > 0)

    def _whole(self, minutes: list[int]) -> list[int]:
        """The same minutes; or all of an hour, the newest of theirs whose minutes are not all kept any more: a clock
        that went ahead, here or on another host, dropped them. What was made of those left would lack the rest."""
        with self._database.survey() as connection:
            for hour in reversed(_hours(minutes)):
                kept = (cells.requests_kept(connection, (grain, hour, hour + HOUR_S)) for grain in (MINUTE_S, HOUR_S))
                if next(kept) != next(kept):
                    return list(range(hour, hour + HOUR_S, MINUTE_S))
        return minutes

    def _hours_from_log(self, minutes: Sequence[int]) -> tuple[list[_Unit], list[int]]:
        """The hours of these minutes, the newest first, for as long as a step may take; and the minutes of them."""
        begun, made, done = self._monotonic(), list[_Unit](), list[int]()
        for hour in reversed(_hours(minutes)):
            made.append(self._from_log(HOUR_S, hour))
            done += [minute for minute in minutes if floor(minute, HOUR_S) == hour]
            if self._monotonic() - begun > STEP_S:
                break
        return made, done

    def _from_log(self, grain: int, start: int) -> _Unit:
        end = start + grain
        with self._database.survey() as connection:
            known = rows.count_rows(connection, start, end)
            scores = _sampled(connection, start, end, known)
        everybody = fold(((*place[:3], schema.EVERYBODY), figures) for place, figures in known.items())
        figures = [((start, *place), one) for place, one in {**known, **everybody}.items()]
        return (grain, start, end), figures, scores


def _hours(minutes: Iterable[int]) -> list[int]:
    return sorted({floor(minute, HOUR_S) for minute in minutes})


def _roll_finer(connection: Connection, grain: int, start: int, finer: int) -> None:
    """A longer time from the shorter ones that it is made of."""
    piece = (finer, start, start + grain)
    known = cells.read_cells(connection, cells.pieces(schema.rollups, [piece]), most=_NO_BOUND)
    scores = cells.read_score_cells(connection, cells.pieces(schema.score_rollups, [piece]), most=_NO_BOUND)
    whole = fold(((start, *place[1:]), figures) for place, figures in known)
    outputs = fold_scores(((start, *place[1:]), one) for place, one in scores)
    cells.write_cells(connection, (grain, start, start + grain), list(whole.items()))
    cells.write_score_cells(connection, (grain, start, start + grain), outputs.items())


_NO_BOUND = 2**31 - 1
"""What a day is made of is bounded by what there was in it."""


def _over(now: float) -> int:
    return floor(now - SETTLE_S, MINUTE_S)


def _open_from(connection: Connection, high: int, now: float) -> int:
    """From here on the log is counted itself; `high` if all is rolled up."""
    first = pending.first_since(connection, floor(now - OPEN_S, MINUTE_S))
    return high if first is None else first


def _countable(connection: Connection, low: int, high: int, names: dict[str, str | None]) -> int:
    """Up to where, in whole minutes, the log itself has at most MOST_COUNTED requests from `low` on; `high` if it has
    no more."""
    if low >= high or rows.count_up_to(connection, low, high, names, MOST_COUNTED + 1) <= MOST_COUNTED:
        return high
    left = MOST_COUNTED
    for start in range(low, min(high, low + 2 * OPEN_S), MINUTE_S):
        left -= rows.count_up_to(connection, start, start + MINUTE_S, names, left + 1)
        if left < 0:
            return start
    return min(high, low + 2 * OPEN_S)


def _waiting(connection: Connection, low: int, opened: int, counted: int, high: int) -> int:
    """How many minutes of [low, high) are in no figure yet."""
    rolled = pending.waiting_between(connection, low, min(high, opened))
    return rolled + (pending.waiting_between(connection, counted, high) if counted < high else 0)


def _kept(
    connection: Connection, selection: Selection, by: Sequence[str], low: int, high: int, interval_s: int | None
) -> list[cells.Cell]:
    covered = list(cover(low, high, interval_s or DAY_S))
    if not covered:
        return []
    table = schema.rollups
    names = _names(selection)
    conditions = [cells.pieces(table, covered)]
    if names["client"] is None:
        every = table.c.client == schema.EVERYBODY
        conditions.append(~every if "client" in by else every)
    found = cells.read_cells(connection, *conditions, *cells.named(table, names), most=MAX_CELLS + 1)
    _check(len(found))
    return found


def _counted(
    connection: Connection, selection: Selection, low: int, high: int, interval_s: int | None
) -> list[cells.Cell]:
    """From the log; one interval after the other, where they are asked for."""
    step = min(interval_s or DAY_S, HOUR_S if interval_s else DAY_S)
    found: list[cells.Cell] = []
    start = low
    while start < high:
        end = min(high, floor(start, step) + step)
        known = rows.count_rows(connection, start, end, _names(selection))
        found += [((start, *place), figures) for place, figures in known.items()]
        start = end
    return found


def _names(selection: Selection) -> dict[str, str | None]:
    return {name: getattr(selection, name) for name in NAMES}


def _group(place: tuple[int, str, str, str, str], by: Sequence[str], interval_s: int | None) -> tuple[int | str, ...]:
    start, *names = place
    known = dict(zip(NAMES, names, strict=True))
    return (*((floor(start, interval_s),) if interval_s else ()), *(known[name] for name in by))


def _sampled(connection: Connection, low: int, high: int, known: dict[rows.Place, Figures]) -> list[cells.ScoreCell]:
    """The scores of every version that answered in [low, high)."""
    most = SAMPLE * max(1, (high - low) // MINUTE_S)
    versions = fold((("", *place[1:3], ""), figures) for place, figures in known.items())
    found: list[tuple[tuple[int, str, str, str], Scores]] = []
    for place, figures in versions.items():
        if figures.answered:
            made = rows.sample_scores(connection, low, high, place, figures.answered, most)
            found += [((low, place[1], place[2], output), scores) for output, scores in made.items()]
    return found


def _check(cells_read: int) -> None:
    if cells_read > MAX_CELLS:
        raise InvalidRequestError(
            "parameter_invalid",
            "That is too much for one answer.",
            field="since",
            expected="a shorter time, a longer interval, fewer names in `by`, or a filter",
            example="interval=day",
        )
