"""`python -m bench.management`: management and audit calls over HTTP, on a folder with so many records and events."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import insert

from bench import models
from bench.log_queries import FIRST_S, fill
from bench.servers import modelyard, published
from modelyard.audit.chain import Head
from modelyard.core.settings import Settings
from modelyard.storage.audit_row import to_row
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.sql import schema
from modelyard.storage.sql.open import AUDIT_HEAD_FILE, open_stores
from modelyard.testing import audit_events

CALLS = 250
CHUNK = 50_000
ADMIN = "bench-administrator-of-the-management-calls"
GETS = (
    "/v1/me", "/v1/models", "/v1/models/m", "/v1/models/m/versions/1", "/v1/endpoints", "/v1/endpoints/m/traffic",
    "/v1/keys", "/v1/predictions", "/v1/predictions?model=m1", "/v1/predictions?client=c3",
    "/v1/predictions?status=4xx", "/v1/predictions?subject=s17", "/v1/predictions?items=true", "/v1/audit",
    "/v1/audit?action=key:revoke", "/v1/audit?subject=endpoint:e77", "/v1/audit?actor=client:c7", "/v1/audit/head",
)  # fmt: skip


def grown(data: Path, model: Path, count: int) -> str:
    """A data folder with a model, `count` records and `count` audit events; a client's key."""
    key = published(data, {"m": model})
    fill(data, count)
    stores = open_stores(Settings(), data)
    database = stores.log._database  # type: ignore[attr-defined]
    events = audit_events(stores.audit.head(), count, FIRST_S * 1_000_000, 1000)
    for _ in track(range(0, count, CHUNK), "Audit events"):
        rows = list(itertools.islice(events, CHUNK))
        with database.write() as connection:
            connection.execute(insert(schema.audit_events), list(map(to_row, rows)))
    HeadFile(data / AUDIT_HEAD_FILE).advance(Head(rows[-1].sequence, rows[-1].hash))
    stores.close()
    return key


def calls(data: Path, key: str) -> dict[str, dict[str, float]]:
    """p50 and p99 in ms of each call, one after the other on one connection; pages of 100."""
    found: dict[str, dict[str, float]] = {}
    with modelyard(data, key, {"MODELYARD_AUTH__ADMIN_KEY": ADMIN}) as target:
        place = urlsplit(target.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)

        def ask(method: str, path: str, body: object = None, key: str = ADMIN) -> None:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"x-api-key": key})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")

        for path in GETS:
            shown, by = path + ("&limit=100" if "?" in path else ""), key if path == "/v1/me" else ADMIN
            found[f"GET {path}"] = timed(lambda shown=shown, by=by: ask("GET", shown, key=by))  # type: ignore[misc]
        numbers = itertools.count()
        found["POST /v1/keys"] = timed(lambda: ask("POST", "/v1/keys", {"client": f"made-{next(numbers)}"}))
        found["PUT /v1/endpoints/m/traffic"] = timed(
            lambda: ask("PUT", "/v1/endpoints/m/traffic", {"weights": {"1": 100}})
        )
    return found


def timed(call: Callable[[], None]) -> dict[str, float]:
    """p50 and p99 of so many calls, in ms."""
    spans = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        spans.append((time.perf_counter() - begun) * 1e3)
    return {"p50_ms": round(statistics.median(spans), 2), "p99_ms": round(sorted(spans)[int(CALLS * 0.99) - 1], 2)}


def main() -> None:
    """Measures, prints, writes bench/results/management.json."""
    parser = argparse.ArgumentParser(prog="bench.management", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="records, and audit events")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        data = Path(folder) / "data"
        key = grown(data, models.tree(Path(folder)).path, chosen.count)
        found = calls(data, key)
    table = Table("call", "p50 ms", "p99 ms", title=f"{chosen.count:,} records and audit events")
    for name, figures in found.items():
        table.add_row(name, f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}")
    Console().print(table)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "management.json").write_text(json.dumps({"count": chosen.count, "calls": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
