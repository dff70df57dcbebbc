"""A long audit log is as quick as a short one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from modelyard.audit.chain import Head
from modelyard.audit.ports import AuditFilter
from modelyard.core.settings import Settings
from modelyard.storage.audit_row import to_row
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.open import AUDIT_HEAD_FILE, DATABASE_FILE, open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import audit_events, version

BEGIN_US = 1_600_000_000_000_000
STEP_US = 60_000_000
ROUNDS = 4
CALLS = 250
BOUND_MS = 50.0
"""The bound of a management call and of a page at p99."""


def grown(data: Path, count: int) -> None:
    """A data folder with two versions and `count` events more, one a minute, of 200 actors on 1000 subjects."""
    stores = open_stores(Settings(), data)
    for name in ("1", "2"):
        stores.registry.add_version(version("tree", name, name.encode()))
    head = stores.audit.head()
    stores.close()
    database = Database(sqlite_url(data / DATABASE_FILE), 30)
    events = audit_events(head, count, BEGIN_US, STEP_US)
    while several := list(islice(events, 50_000)):
        head = Head(several[-1].sequence, several[-1].hash)
        with database.write() as connection:
            connection.execute(insert(schema.audit_events), list(map(to_row, several)))
    assert head is not None
    HeadFile(data / AUDIT_HEAD_FILE).advance(head)
    database.close()


FILTERS: dict[str, AuditFilter] = {
    "all": AuditFilter(),
    "action": AuditFilter(action="key:revoke"),
    "subject": AuditFilter(subject="endpoint:e77"),
    "actor": AuditFilter(actor="client:c7"),
    "time": AuditFilter(since=BEGIN_US / 1e6 + 3_000_000, until=BEGIN_US / 1e6 + 9_000_000),
    "action and time": AuditFilter(action="traffic:set", since=BEGIN_US / 1e6, until=BEGIN_US / 1e6 + 3_000_000),
    "actor and action": AuditFilter(actor="client:c7", action="key:revoke"),
    "subject and actor": AuditFilter(subject="endpoint:e77", actor="client:c11"),
    "an actor that is none": AuditFilter(actor="client:nobody"),
    "an action that never was": AuditFilter(action="none:none"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_pages_read_along_an_index(tmp_path: Path, name: str) -> None:
    """No filter scans the table, none sorts what matches."""
    database = Database(sqlite_url(tmp_path / DATABASE_FILE), 5)
    opened = open_stores(Settings(), tmp_path)
    statements: list[str] = []
    try:
        with database.read() as connection:
            raw: Any = connection.connection.driver_connection
        engine = opened.ping.__self__.engine  # type: ignore[attr-defined]
        with engine.connect() as watched:
            watched.connection.driver_connection.set_trace_callback(statements.append)
        opened.audit.page(FILTERS[name], 100, None)
        opened.audit.page(FILTERS[name], 100, "1600000000000000-5")
        plans = [raw.execute(f"EXPLAIN QUERY PLAN {s}").fetchall() for s in statements if s.startswith("SELECT")]
    finally:
        opened.close()
        database.close()
    assert len(plans) == 2
    best = {"subject and actor": "ix_audit_events_subject", "actor and action": "ix_audit_events_actor_action"}
    for plan in plans:
        text = " ".join(step[3] for step in plan)
        assert f"USING INDEX {best.get(name, 'ix_audit_events')}" in text, text
        assert "TEMP B-TREE" not in text, text


@pytest.fixture
def million(tmp_path: Path) -> Iterator[Stores]:
    """Stores over a log of a million events."""
    grown(tmp_path / "data", 1_000_000)
    opened = open_stores(Settings(), tmp_path / "data")
    yield opened
    opened.close()


def p99_ms(work: Callable[[], object]) -> float:
    """The p99 of the best of four rounds: other programs' load only ever adds."""
    best = float("inf")
    for _ in range(ROUNDS):
        spans = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            work()
            spans.append(time.perf_counter() - begun)
        best = min(best, sorted(spans)[int(CALLS * 0.99) - 1] * 1000)
    return best


@pytest.mark.long
def test_a_million_events_slow_nothing_down(million: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages by every filter, from the start and from random places, and changes with their events: p99 within 50 ms.
    The check of the whole chain finds it sound; its time is printed."""
    draw = random.Random(0)
    places = [f"{BEGIN_US + draw.randrange(1_000_000) * STEP_US}-{draw.randrange(1_000_000)}" for _ in range(1000)]
    figures = {
        f"list, {name}": p99_ms(lambda wanted=wanted: million.audit.page(wanted, 100, None))  # type: ignore[misc]
        for name, wanted in FILTERS.items()
    }
    for name in ("all", "action", "subject", "actor"):
        wanted = FILTERS[name]
        figures[f"list, {name}, from anywhere"] = p99_ms(
            lambda wanted=wanted: million.audit.page(wanted, 100, draw.choice(places))  # type: ignore[misc]
        )
    shares = iter(range(10**9))
    figures["head"] = p99_ms(million.audit.head)
    figures["switch of traffic, with its event"] = p99_ms(
        lambda: million.endpoints.set_traffic("tree", (("1", next(shares) % 100), ("2", 1)))
    )
    begun = time.perf_counter()
    found = million.audit.verify()
    verify_s = time.perf_counter() - begun
    with capsys.disabled():
        print()
        for name, figure in figures.items():
            print(f"  {name}: p99 {figure:.1f} ms")
        print(f"  verify: {verify_s:.1f} s for {found.checked} events")
    assert found.sound
    assert {name: figure for name, figure in figures.items() if figure > BOUND_MS} == {}
