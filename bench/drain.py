"""What `bench.drain_mysql` and `bench.drain_postgresql` share: records a second into a database server, by the drain's
sink and by the server's bare driver, in turns.

Both write the same records of about 1 KB, in batches of `journal.drain_batch`, each batch in a transaction, into the
same table with its indexes (and partitions, where there are any). The driver is handed rows that are made already;
ours makes them, looks for outcomes that waited, and moves the position of the spool. The server has the other core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson
from sqlalchemy import text

from bench.servers import CLIENT_CORE, SERVER_CORE
from modelyard.core.settings import JournalSettings
from modelyard.journal.ids import PredictionIds
from modelyard.journal.ports import SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.storage.prediction_row import to_row
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import upgrade_to_head
from modelyard.testing import prediction_record

BUSY_TIMEOUT_S = 60.0
INPUTS = orjson.Fragment(orjson.dumps({"x": [[float(f"0.{n:07}") for n in range(1_234_000, 1_234_080)]]}))
OUTPUTS = orjson.Fragment(b'{"label":[1],"probabilities":[[0.25,0.75]]}')
CLIENTS, MODELS, VERSIONS = 20, 5, 3
Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Bare:
    """A driver of its own: a connection with our session's settings, and how it inserts a batch and commits."""

    connected: Callable[[str], AbstractContextManager[Any]]
    insert: Callable[[Any, Rows], None]


def records(count: int, now_s: float) -> list[PredictionRecord]:
    """As the drain decodes them: the ids of one worker from now on, 20 µs apart; 20 clients, 5 models of 3 versions."""
    at_s = now_s
    ids = PredictionIds(0xBE9C4, lambda: at_s)
    made = []
    for n in range(count):
        at_s = now_s + n / 50_000
        model = f"m{n % MODELS}"
        named = {"client": f"c{n * 7 % CLIENTS}", "endpoint": model, "model": model, "version": str(n % VERSIONS)}
        record = prediction_record(ids.next(), at=at_s, request_id=f"r{n:030}", **named)
        made.append(msgspec.structs.replace(record, inputs=INPUTS, outputs=OUTPUTS))
    return made


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


def by_the_driver(bare: Bare, url: str, batches: Sequence[Rows]) -> float:
    """Seconds that the insertion and COMMIT took."""
    with bare.connected(url) as connection:
        begun = time.perf_counter()
        for batch in batches:
            bare.insert(connection, batch)
        return time.perf_counter() - begun


def measured(url: str, bare: Bare, count: int, passes: int, server_pid: int = 0) -> None:
    """Prints both rates of each pass, and their medians; what the server spent, where its process is known."""
    database = Database(url, BUSY_TIMEOUT_S)
    database.open()
    upgrade_to_head(database)
    size = JournalSettings().drain_batch
    made = records(count, time.time())
    batches = [made[start : start + size] for start in range(0, count, size)]
    rows = [list(map(to_row, batch)) for batch in batches]
    row_bytes = sum(len(str(value)) for value in rows[0][0])
    print(f"{count:,} records of {row_bytes:,} bytes, batches of {size:,}; load {os.getloadavg()[0]:.1f}")
    rates: dict[str, list[float]] = {"drain": [], "driver": []}
    for number in range(passes):
        said = []
        for name, store in (
            ("drain", lambda: by_the_sink(url, batches)),
            ("driver", lambda: by_the_driver(bare, url, rows)),
        ):
            _empty(database)
            own, its = time.process_time(), spent_s(server_pid)
            rates[name].append(count / store())
            own, its = time.process_time() - own, spent_s(server_pid) - its
            said.append(f"{name} {rates[name][-1]:9,.0f}/s ({own / count * 1e6:.0f} + {its / count * 1e6:.0f} µs)")
        ratio = rates["drain"][-1] / rates["driver"][-1]
        print(f"pass {number + 1}: {', '.join(said)}, ratio {ratio:.2f}", flush=True)
    database.close()
    ours, theirs = map(statistics.median, rates.values())
    print(f"medians: drain {ours:8,.0f}/s, driver {theirs:9,.0f}/s, ratio {ours / theirs:.2f}")
    print("in brackets: CPU of this process and of the server, for each record")


def _empty(database: Database) -> None:
    with database.write(holds_appends=True) as connection:
        connection.execute(text("DELETE FROM spool_positions"))
    # By itself: where a change of the schema commits, it would end the transaction.
    with database.upgrade() as connection:
        connection.execute(text("TRUNCATE TABLE predictions"))


def spent_s(pid: int) -> float:
    """CPU seconds of a process, of its descendants and of those that it has outlived; 0 if there is none."""
    total, waiting = 0.0, [pid] if pid else []
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except FileNotFoundError:
            continue
    return total


@contextmanager
def on_core(core: str) -> Iterator[None]:
    """What starts in here stays on that core; this process goes back to its own."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(name: str, doc: str | None, bare: Bare, server: Callable[[], AbstractContextManager[tuple[str, int]]]) -> None:
    """The command: measures a server that `server` starts (its empty database's URL, and its process), or the one that
    is named."""
    parser = argparse.ArgumentParser(prog=name, description=doc)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--database-url", help="an empty database")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    if asked.database_url:
        measured(asked.database_url, bare, asked.records, asked.passes)
        return
    with ExitStack() as stack:
        with on_core(CLIENT_CORE):
            url, pid = stack.enter_context(server())
        measured(url, bare, asked.records, asked.passes, pid)
