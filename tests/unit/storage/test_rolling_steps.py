"""Steps of a rollup are bounded, and all of them together are the whole."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from modelyard.analytics.cells import DAY_S, HOUR_S
from modelyard.analytics.ports import Selection
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.analytics.store import MINUTES_AT_ONCE, STEP_S, SqlAnalyticsStore
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import upgrade_to_head
from modelyard.testing import prediction_record

NOW = 1_700_006_400.0


def opened(folder: Path, step_s: float) -> tuple[SqlAnalyticsStore, SqlRecordSink]:
    """A store whose clock goes on by so much at each look."""
    database = Database(sqlite_url(folder / "log.db"), 5.0)
    database.open()
    upgrade_to_head(database)
    ticks = count()
    return SqlAnalyticsStore(database, lambda: next(ticks) * step_s), SqlRecordSink(database)


def steps(store: SqlAnalyticsStore) -> list[int]:
    """Minutes of each step until nothing waits."""
    found = []
    while True:
        rolled = store.roll(NOW)
        found.append(rolled.minutes)
        if not rolled.more:
            return found


def test_old_hours_end_in_time(tmp_path: Path) -> None:
    """Twelve old hours of one day: together where there is time, one a step where each takes too long."""
    for name, step_s, expected in (("quick", 0.0, [24]), ("slow", STEP_S + 1, [2] * 12)):
        (tmp_path / name).mkdir()
        store, sink = opened(tmp_path / name, step_s)
        old = [prediction_record(f"p{n}", NOW - 10 * DAY_S + n * HOUR_S / 2, client="c", total_us=n) for n in range(24)]
        sink.store(old, SpoolPosition("f", 1))
        assert steps(store) == expected
        (figures,) = store.count(Selection(NOW - 20 * DAY_S, NOW), (), None, NOW).groups.values()
        assert (figures.requests, figures.total_us) == (24, sum(range(24)))


def test_minutes_come_in_bounded_numbers(tmp_path: Path) -> None:
    """Two hundred minutes that wait are written so many at once, the newest first."""
    store, sink = opened(tmp_path, 0.0)
    sink.store([prediction_record(f"p{n}", NOW - 600 - 60 * n) for n in range(200)], SpoolPosition("f", 1))
    found = steps(store)
    assert max(found) == MINUTES_AT_ONCE
    assert sum(found) == 200
    (figures,) = store.count(Selection(NOW - DAY_S, NOW), (), None, NOW).groups.values()
    assert figures.requests == 200
