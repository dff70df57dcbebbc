"""The prediction log with a million records: a page by any filter within 50 ms (issue: audit and management calls)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard.core.settings import Settings
from modelyard.journal.items import item_page
from modelyard.journal.ports import RecordFilter
from modelyard.storage.sql.open import DATABASE_FILE, open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import fill_log, prediction_record

RECORDS = 1_000_000
PAGES = 100
MAX_P99_MS = 50.0
T = 1_700_000_000

_LABEL = """
INSERT INTO outcomes
SELECT id, 0, 1, v, v, at, at, client, key_id, 1, at FROM (
  SELECT id, at, client, key_id, CASE WHEN rowid % 1000 = 5 THEN '"rare"' ELSE CAST(rowid % 2 AS TEXT) END AS v
  FROM predictions WHERE at < {until} AND rowid % 10 < 6)
"""
FILTERS = [
    RecordFilter(),
    RecordFilter(since=T + 100.0, until=T + 200.0),
    RecordFilter(model="m1"),
    RecordFilter(model="old"),
    RecordFilter(model="m1", version="1"),
    RecordFilter(model="old", version="2"),
    RecordFilter(version="rare"),
    RecordFilter(client="c3"),
    RecordFilter(client="early"),
    RecordFilter(endpoint="old"),
    RecordFilter(status=4),
    RecordFilter(status=500),
    RecordFilter(subject="s17"),
    RecordFilter(subject="nobody"),
    RecordFilter(outcome="has"),
    RecordFilter(outcome="none"),
    RecordFilter(outcome="=1"),
    RecordFilter(outcome='="rare"'),
    RecordFilter(outcome="=nobody"),
    RecordFilter(subject="s17", outcome="has"),
    RecordFilter(items=True),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """A database of a million records; the older half has outcomes for most."""
    data: Path = tmp_path_factory.mktemp("scale") / "data"
    stores = open_stores(Settings(), data)
    database = stores.log._database  # type: ignore[attr-defined]
    with database.write() as connection:
        fill_log(connection, 0, RECORDS, T)
        connection.exec_driver_sql(_LABEL.format(until=(T * 1000 + RECORDS // 2) * 1000))
    assert (data / DATABASE_FILE).stat().st_size > 100 * 1024**2
    yield stores
    stores.close()


def _pages_ms(stores: Stores, wanted: RecordFilter) -> tuple[float, float, float]:
    """Of pages of 100, from the newest on and over again: median and p99 as waited for, p99 of the CPU's time."""
    waited: list[float] = []
    worked: list[float] = []
    cursor = None
    for _ in range(PAGES):
        begun, cpu = time.perf_counter(), time.thread_time()
        page = item_page(stores.log, wanted, 100, cursor) if wanted.items else stores.log.page(wanted, 100, cursor)
        worked.append((time.thread_time() - cpu) * 1000)
        waited.append((time.perf_counter() - begun) * 1000)
        cursor = page.cursor
    p99 = int(PAGES * 0.99) - 1
    return sorted(waited)[PAGES // 2], sorted(waited)[p99], sorted(worked)[p99]


@pytest.mark.long
def test_a_page_by_any_filter_takes_less_than_50_ms(full: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages of 100 of a million records, one after the other, by each filter. Held to the bound is the p99 of the
    thread's own time, which other load on the machine does not lengthen; what was waited for is printed beside it."""
    assert full.log.count(RecordFilter()) == RECORDS
    assert len(full.quarantine.page(RecordFilter(), 100, None).records) == RECORDS // 50_000
    slow: dict[str, float] = {}
    with capsys.disabled():
        print("\n median    p99  p99 of CPU, ms")
        for wanted in FILTERS:
            median, p99, cpu = _pages_ms(full, wanted)
            name = ", ".join(f"{k}={v}" for k, v in msgspec.structs.asdict(wanted).items() if v not in (None, False))
            print(f"{median:7.1f}{p99:7.1f}{cpu:7.1f}   {name or 'all'}")
            if cpu >= MAX_P99_MS:
                slow[name] = cpu
    assert not slow


@pytest.mark.long
def test_the_drain_stores_into_a_full_log_as_fast(full: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    """Every index costs: CPU microseconds per record, stored a thousand at a time behind a million."""
    from modelyard.journal.ports import SpoolPosition

    records = [prediction_record(f"{'f' * 16}{n:010x}", at=T + 2000.0 + n / 1000) for n in range(20_000)]
    begun = time.process_time()
    for start in range(0, len(records), 1000):
        full.sink.store(records[start : start + 1000], SpoolPosition("f", start))
    with capsys.disabled():
        print(f"\n{(time.process_time() - begun) / len(records) * 1e6:7.1f} µs of CPU per record", end="")
