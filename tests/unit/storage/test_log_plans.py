"""Which index serves what is asked of the prediction log: SQLite's own plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.analytics.ports import Selection
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.storage.sql.analytics.store import SqlAnalyticsStore
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.quarantine import SqlQuarantineLog
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.upgrade import upgrade_to_head
from modelyard.testing import prediction_record


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An open database at the newest schema."""
    opened = Database(sqlite_url(tmp_path / "test.db"), 5.0)
    opened.open()
    upgrade_to_head(opened)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (RecordFilter(), "ix_predictions_figures"),
        (RecordFilter(since=1.0, until=2.0), "ix_predictions_figures"),
        (RecordFilter(model="m"), "ix_predictions_model_version"),
        (RecordFilter(model="m", version="1", since=1.0), "ix_predictions_model_version"),
        (RecordFilter(model="m", status=2, until=9e9), "ix_predictions_model_version"),
        (RecordFilter(model="m", outcome="none"), "ix_predictions_model_version"),
        (RecordFilter(model="m", client="c"), "ix_predictions_client"),
        (RecordFilter(version="1"), "ix_predictions_model_version"),
        (RecordFilter(version="1", since=1.0), "ix_predictions_model_version"),
        (RecordFilter(endpoint="e"), "ix_predictions_endpoint"),
        (RecordFilter(endpoint="e", status=5), "ix_predictions_endpoint"),
        (RecordFilter(subject="s"), "ix_predictions_subject"),
        (RecordFilter(subject="s", outcome="has"), "ix_predictions_subject"),
        (RecordFilter(outcome="has"), "ix_outcomes_at"),
        (RecordFilter(outcome="has", since=1.0, until=2.0), "ix_outcomes_at"),
        (RecordFilter(outcome="=1"), "ix_outcomes_value"),
        (RecordFilter(outcome="=1", since=1.0, model="m"), "ix_outcomes_value"),
        (RecordFilter(outcome="none"), "ix_predictions_figures"),
        (RecordFilter(outcome="none", client="c"), "ix_predictions_client"),
        (RecordFilter(items=True), "ix_predictions_figures"),
        (RecordFilter(client="c", until=5.0), "ix_predictions_client"),
        (RecordFilter(status=5), "ix_predictions_failed"),
        (RecordFilter(status=404), "ix_predictions_failed"),
    ],
    ids=str,
)
def test_pages_are_served_newest_first_by_an_index(database: Database, wanted: RecordFilter, index: str) -> None:
    """Each filter reads along its index, without a scan of the table and without sorting all that matches."""
    SqlRecordSink(database).store([prediction_record(at=3.0, model="m", version="1")], SpoolPosition("f", 1))
    statements = _asked(database, lambda: SqlRecordLog(database).page(wanted, 10, None))
    plans = [_plan(database, sql) for sql in statements]
    pages = [plan for sql, plan in zip(statements, plans, strict=True) if "inputs" in sql]
    assert pages
    assert all(any(index in step for step in plan) for plan in pages), pages
    for step in (step for plan in plans for step in plan):
        assert not step.startswith(("SCAN predictions", "SCAN outcomes")) or "INDEX" in step, plans
        # What may be sorted is the right part of the order alone: ids of one microsecond.
        assert "TEMP B-TREE" not in step or "RIGHT PART" in step or "LAST TERM" in step, plans


def _asked(database: Database, call: Callable[[], object]) -> list[str]:
    """The statements that a call reads by."""
    statements: list[str] = []
    with database.read() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(statements.append)
    call()
    raw.set_trace_callback(None)
    return [sql for sql in statements if sql.startswith(("SELECT", "WITH"))]


def _plan(database: Database, statement: str) -> list[str]:
    with database.read() as connection:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]


@pytest.mark.parametrize("name", ["model", "version", "client", "endpoint"])
def test_what_was_kept_raw_is_listed_by_its_own_index(database: Database, name: str) -> None:
    """Also by a name, whose index would lead to all records of that name."""
    wanted = RecordFilter(**{name: "m"})
    statements = _asked(database, lambda: SqlQuarantineLog(database).page(wanted, 10, None))
    (plan,) = (_plan(database, sql) for sql in statements if "FROM predictions" in sql)
    assert any("ix_predictions_flagged" in step for step in plan), plan


def test_a_page_of_a_model_asks_only_the_versions_that_can_be_on_it(database: Database) -> None:
    """Of a model with two hundred old versions, a page of the newest one costs three queries: which versions there
    are, the page, its outcomes; a page that ends among old ones, those that it shows."""
    old = [prediction_record(f"p{n:03}", at=1000.0 + n, model="m", version=f"v{n}") for n in range(200)]
    new = [prediction_record(f"q{n:03}", at=2000.0 + n, model="m", version="new") for n in range(20)]
    SqlRecordSink(database).store([*old, *new], SpoolPosition("f", 1))
    log, wanted = SqlRecordLog(database), RecordFilter(model="m")
    first = log.page(wanted, 19, None)
    assert len(_asked(database, lambda: log.page(wanted, 19, None))) == 3
    assert len(_asked(database, lambda: log.page(wanted, 9, first.cursor))) == 2 + 1 + 9
    assert [record["version"] for record in log.page(wanted, 3, first.cursor).records] == ["new", "v199", "v198"]
    assert len(_asked(database, lambda: log.page(RecordFilter(version="v7"), 9, None))) == 3
    assert len(_asked(database, lambda: log.page(RecordFilter(version="none"), 9, None))) == 1


@pytest.mark.parametrize(
    "names", [{"model": "m"}, {"version": "1"}, {"model": "m", "version": "1"}, {"client": "c"}], ids=str
)
def test_figures_of_a_name_are_read_along_their_time(database: Database, names: dict[str, str]) -> None:
    """What is not rolled up yet is counted from the log, and no record of another time is looked at."""
    fields = {"model": "m", "version": "1", "client": "c", **names}
    SqlRecordSink(database).store([prediction_record(at=600_030.0, **fields)], SpoolPosition("f", 1))
    analytics = SqlAnalyticsStore(database)
    selection = Selection(since=600_000.0, until=600_060.0, **names)
    statements = _asked(database, lambda: analytics.count(selection, (), None, 600_070.0))
    plans = [_plan(database, sql) for sql in statements if "total_us" in sql and "FROM predictions" in sql]
    assert plans
    assert all(any("at>? AND at<?" in step for step in plan) for plan in plans), plans


def test_figures_of_all_are_counted_without_reading_a_record(database: Database) -> None:
    """Bodies lie in the rows of SQLite: an index alone has what is counted, however large they are."""
    SqlRecordSink(database).store([prediction_record(at=600_030.0)], SpoolPosition("f", 1))
    analytics = SqlAnalyticsStore(database)
    selection = Selection(since=600_000.0, until=600_060.0)
    statements = _asked(database, lambda: analytics.count(selection, (), None, 600_070.0))
    plans = [_plan(database, sql) for sql in statements if "total_us" in sql and "FROM predictions" in sql]
    assert plans
    assert all("COVERING INDEX ix_predictions_figures" in plan[0] for plan in plans), plans
