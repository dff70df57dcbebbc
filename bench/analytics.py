"""How long a dashboard's question takes among so many records, and what the rollups cost, on SQLite.

`python -m bench.analytics --records 10000000 --folder DIR`: the records of bench.log_queries
(a millisecond apart: 20 clients, 5 models and endpoints of 3 versions), then the same number spread over 90 days.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.log_queries import FIRST_S, fill
from modelyard.analytics.desk import AnalyticsDesk
from modelyard.core.settings import Settings
from modelyard.http.forms.figures import FIGURES
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock

QUESTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "all, a day": ("requests", {}),
    "all, ninety days": ("requests", {"since": "90d"}),
    "by version, ninety days": ("requests", {"since": "90d", "by": "model,version"}),
    "by client, ninety days": ("requests", {"since": "90d", "by": "client"}),
    "by hour, thirty days": ("requests", {"since": "30d", "interval": "hour"}),
    "by hour and version, seven days": ("requests", {"since": "7d", "interval": "hour", "by": "version"}),
    "by minute, an hour": ("requests", {"since": "1h", "interval": "minute"}),
    "by day, ninety days": ("requests", {"since": "90d", "interval": "day"}),
    "a client, ninety days": ("requests", {"since": "90d", "client": "c3", "by": "endpoint"}),
    "the last two minutes": ("requests", {"since": "2m", "by": "endpoint,client"}),
    "scores, ninety days": ("scores", {"since": "90d", "model": "m1"}),
    "two versions, ninety days": ("comparison", {"since": "90d", "model": "m1", "base": "1", "other": "2"}),
}
REPEATS = 5
DAYS = 90


def spread(stores: Stores, records: int) -> int:
    """Moves the records apart, over DAYS days; UNIX seconds of the last one."""
    step_us = DAYS * 86_400_000_000 // records
    with stores.log._database.write() as connection:  # type: ignore[attr-defined]
        moved = "UPDATE predictions SET at = {0} + (at - {0}) / 1000 * {1}".format(FIRST_S * 1_000_000, step_us)
        connection.exec_driver_sql(moved)
    return FIRST_S + DAYS * 86_400


def note_everything(stores: Stores) -> None:
    """What the records' own way into the log would have noted."""
    with stores.log._database.write() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("DELETE FROM rollups")
        connection.exec_driver_sql("DELETE FROM score_rollups")
        connection.exec_driver_sql("DELETE FROM pending_rollups")
        connection.exec_driver_sql("INSERT INTO pending_rollups SELECT DISTINCT at / 60000000 * 60, 0 FROM predictions")


def timed(act: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def asked(stores: Stores, now: float) -> dict[str, float]:
    """The slowest of a few times of each question, in milliseconds; beside them what was rolled up, and how fast."""
    assert stores.analytics is not None
    clock = FakeClock(now)
    desk = AnalyticsDesk(stores.analytics, stores.leases, clock)
    found = {"rolling up everything, s": round(timed(desk.refresh), 1)}
    clock.advance(60.0)
    for name, (question, wanted) in QUESTIONS.items():
        times = [timed(lambda q=question, w=wanted: FIGURES[q](desk, w, clock.now())) for _ in range(REPEATS)]
        found[name] = round(max(times) * 1e3, 1)
    return found


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="modelyard-bench-"))
    fill(folder, chosen.records)
    stores = open_stores(Settings(), folder)
    last = FIRST_S + chosen.records / 1000
    note_everything(stores)
    close = asked(stores, last)
    last = spread(stores, chosen.records)
    note_everything(stores)
    print(json.dumps({"records": chosen.records, "a millisecond apart, ms": close, "over ninety days, ms":
                      asked(stores, last)}, indent=2))  # fmt: skip
    stores.close()


if __name__ == "__main__":
    main()
