"""How long a backup, its check and its restoration take: `python -m bench.backup --records 1000000`.

The recovery time is that of `restore` (it verifies first) and of a start; the recovery point is the begin of the last
`create`, so it is the interval of backups. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.backup.create import create
from modelyard.backup.restore import restore, verify
from modelyard.core.clock import SystemClock
from modelyard.core.settings import load_settings
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.open import DATABASE_FILE, open_stores
from modelyard.testing.builders import T0, fill_log

BUSY_S = 5.0
CHUNK = 100_000


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that it took, and what it gave."""
    begun = time.perf_counter()
    given = act()
    return time.perf_counter() - begun, given


def measure(folder: Path, records: int, suffix: str) -> dict[str, Any]:
    """One round in an empty folder; `suffix` is that of the backup's name."""
    settings = load_settings(data=folder / "data")
    open_stores(settings, settings.data).close()
    database = Database(sqlite_url(settings.data / DATABASE_FILE), BUSY_S)
    for first in range(0, records, CHUNK):
        with database.write() as connection:
            fill_log(connection, first, min(CHUNK, records - first), int(T0))
    database.close()
    out = folder / f"backup{suffix}"
    create_s, made = timed(lambda: create(settings, out, SystemClock(), 0.0))
    verify_s, (_, findings) = timed(lambda: verify(out, settings))
    restore_s, _ = timed(lambda: restore(out, folder / "restored", settings))
    assert not findings
    return {
        "form": suffix or "folder", "records": made.counts["records"], "size_bytes": made.size_bytes,
        "create_s": create_s, "create_records_per_s": records / create_s, "verify_s": verify_s,
        "restore_s": restore_s, "restore_records_per_s": records / restore_s,
    }  # fmt: skip


def main() -> None:
    """Measures both forms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    records = parser.parse_args().records
    for suffix in ("", ".tar"):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), records, suffix)), flush=True)


if __name__ == "__main__":
    main()
