"""A running server rolls its log up and archives what leaves, by itself; figures and archive are asked for as people
do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from server import RunningServer, command, until

from modelyard.core.settings import Settings
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record

DAY_S = 86_400


def test_a_server_rolls_up_and_archives(serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    """Records of the last days wait to be rolled up; soon none does, and the figures are right. Those of before
    retention.days are in the archive, and nowhere else; the certificate says so."""
    data, archive = tmp_path / "data", tmp_path / "archive"
    stores = open_stores(Settings(), data)
    now = time.time()
    recent = [prediction_record(f"p{n}", now - 7200 - 60 * n, version=str(1 + n % 2)) for n in range(50)]
    old = [prediction_record(f"old{n}", now - 100 * DAY_S - n) for n in range(20)]
    stores.sink.store([*recent, *old], SpoolPosition("f", 1))
    stores.close()
    settings = {
        "analytics.interval_s": "0.2", "retention.interval_s": "0.2", "retention.max_share": "1",
        "retention.archive_url": str(archive),
    }  # fmt: skip
    server = serve(settings=settings)

    def rolled() -> bool:
        figures = server.ask("GET", "/v1/analytics/requests?since=200d&by=version").json
        return figures["pending_minutes"] == 0 and sum(one["requests"] for one in figures["groups"]) == 50

    until(rolled, 30, "the rollups, without what left")
    there = ("--server", server.url, "--key", server.key, "--json")
    compared = json.loads(command("analytics", "compare", "tree", "1", "2", *there).stdout)
    assert (compared["base"]["requests"], compared["other"]["requests"]) == (25, 25)
    assert server.count() == 50
    assert list(archive.rglob("day=*/endpoint=tree/part-*.parquet"))
    events = server.ask("GET", "/v1/audit?action=retention:delete").json["events"]
    assert sum(event["after"]["predictions"] for event in events) == 20
    assert all(event["after"]["archived"].startswith("day=") for event in events)
