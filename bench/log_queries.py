"""How long a query of the prediction log takes among so many records (SQLite)."""

from __future__ import annotations

import time
from pathlib import Path

from modelyard.core.settings import Settings
from modelyard.journal.ports import RecordFilter
from modelyard.storage.sql.open import open_stores
from modelyard.testing import fill_log

FIRST_S = 1_700_000_000
PAGES = 20
QUERIES = {
    "newest": RecordFilter(),
    "a time": RecordFilter(since=FIRST_S + 100.0, until=FIRST_S + 200.0),
    "a model": RecordFilter(model="m1"),
    "a model's version": RecordFilter(model="m1", version="1"),
    "a client": RecordFilter(client="c3"),
    "failed": RecordFilter(status=500),
    "a subject": RecordFilter(subject="s17"),
}


def fill(folder: Path, records: int, step: int = 1_000_000) -> None:
    """Puts so many records into the folder's log."""
    stores = open_stores(Settings(), folder)
    database = stores.log._database  # type: ignore[attr-defined]
    for first in range(0, records, step):
        with database.write() as connection:
            fill_log(connection, first, min(step, records - first), FIRST_S)
    stores.close()


def query_times(folder: Path, records: int, step: int = 1_000_000) -> dict[str, float]:
    """Milliseconds of a page of 100 (the slowest of 20 pages) by filter, of one record by its id, and of a count over
    100 seconds of records."""
    fill(folder, records, step)
    stores = open_stores(Settings(), folder)
    found: dict[str, float] = {}
    for name, wanted in QUERIES.items():
        cursor, slowest = None, 0.0
        for _ in range(PAGES):
            begun = time.perf_counter()
            page = stores.log.page(wanted, 100, cursor)
            slowest = max(slowest, time.perf_counter() - begun)
            cursor = page.cursor
        found[name] = round(slowest * 1e3, 2)
    begun = time.perf_counter()
    assert stores.log.get(f"{records // 2 % 7:016x}{records // 2:010x}") is not None
    found["one by its id"] = round((time.perf_counter() - begun) * 1e3, 2)
    begun = time.perf_counter()
    stores.log.count(QUERIES["a time"])
    found["a count"] = round((time.perf_counter() - begun) * 1e3, 2)
    stores.close()
    return found
