"""`python -m bench.drain_mysql`: records a second into MySQL, by the drain's sink and by the bare driver, in turns.

Both write the same records of about 1 KB, in batches of `journal.drain_batch`, each batch in a transaction, into the
same table with its indexes. The driver is handed rows that are made already; ours makes them, looks for outcomes that
waited, and moves the position of the spool. A throw-away MariaDB is started for it (durable: one flush per commit),
or `--database-url` names an empty database.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql
from sqlalchemy import make_url

from modelyard.core.settings import JournalSettings
from modelyard.journal.ports import SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.storage.prediction_row import COLUMNS, to_row
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects.mysql import connect_args
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import upgrade_to_head
from modelyard.testing import prediction_record

BUSY_TIMEOUT_S = 60.0
INPUTS = {"x": [[float(f"0.{n:07}") for n in range(1_234_000, 1_234_080)]]}
OPTIONS = (
    "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G",
)  # fmt: skip


def records(count: int) -> list[PredictionRecord]:
    """As the drain decodes them: ids of one worker, a millisecond apart."""
    return [
        prediction_record(f"{'f' * 16}{n:010x}", at=1_700_000_000 + n / 1000, inputs=INPUTS, request_id=f"r{n:030}")
        for n in range(count)
    ]


def by_the_sink(url: str, batches: Sequence[list[PredictionRecord]]) -> float:
    """Seconds that storing took."""
    database = Database(url, BUSY_TIMEOUT_S)
    sink = SqlRecordSink(database)
    sink.position("f")  # connected, as a drain is
    begun = time.perf_counter()
    for number, batch in enumerate(batches):
        assert sink.store(batch, SpoolPosition("f", number + 1)).inserted == len(batch)
    took = time.perf_counter() - begun
    database.close()
    return took


def by_the_driver(url: str, batches: Sequence[list[tuple[Any, ...]]]) -> float:
    """Seconds that `executemany` and COMMIT took."""
    statement = (
        f"INSERT INTO predictions ({', '.join(f'`{name}`' for name in COLUMNS)}) "
        f"VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    )
    with connected(url) as connection:
        begun = time.perf_counter()
        for batch in batches:
            with connection.cursor() as cursor:
                cursor.executemany(statement, batch)
            connection.commit()
        return time.perf_counter() - begun


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection of the driver's own, with our session's settings."""
    parsed = make_url(url)
    login = {"host": parsed.host, "port": parsed.port or 3306, "user": parsed.username, "database": parsed.database}
    connection = pymysql.connect(**login, **connect_args(parsed, BUSY_TIMEOUT_S))  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        connection.close()


def measured(url: str, count: int, passes: int) -> None:
    """Prints both rates of each pass, and their medians."""
    database = Database(url, BUSY_TIMEOUT_S)
    database.open()
    upgrade_to_head(database)
    database.close()
    size = JournalSettings().drain_batch
    made = records(count)
    batches = [made[start : start + size] for start in range(0, count, size)]
    rows = [list(map(to_row, batch)) for batch in batches]
    row_bytes = sum(len(str(value)) for value in rows[0][0])
    print(f"{count:,} records of {row_bytes:,} bytes, batches of {size:,}; load {os.getloadavg()[0]:.1f}")
    rates: dict[str, list[float]] = {"drain": [], "driver": []}
    cpu_us: dict[str, list[float]] = {"drain": [], "driver": []}
    for number in range(passes):
        for name, store in (("drain", lambda: by_the_sink(url, batches)), ("driver", lambda: by_the_driver(url, rows))):
            with connected(url) as connection, connection.cursor() as cursor:
                cursor.execute("TRUNCATE TABLE predictions")
                cursor.execute("DELETE FROM spool_positions")
                connection.commit()
            cpu_s = time.process_time()
            rates[name].append(count / store())
            cpu_us[name].append((time.process_time() - cpu_s) / count * 1e6)
        ours, theirs = rates["drain"][-1], rates["driver"][-1]
        print(
            f"pass {number + 1}: drain {ours:9,.0f}/s ({cpu_us['drain'][-1]:.0f} µs of our CPU each), "
            f"driver {theirs:9,.0f}/s ({cpu_us['driver'][-1]:.0f} µs), ratio {ours / theirs:.2f}"
        )
    ours, theirs = map(statistics.median, rates.values())
    print(f"medians: drain {ours:8,.0f}/s, driver {theirs:9,.0f}/s, ratio {ours / theirs:.2f}")


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(prog="bench.drain_mysql", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--database-url", help="an empty database of a MySQL or MariaDB server")
    asked = parser.parse_args()
    if asked.database_url:
        measured(asked.database_url, asked.records, asked.passes)
        return
    from tests.mariadb.server import serving

    with serving(*OPTIONS) as server:
        measured(server.empty(), asked.records, asked.passes)


if __name__ == "__main__":
    main()
