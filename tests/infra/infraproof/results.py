"""Keeps what the proof measured as JSON, for docs/infra-proof.md: in build/ always, in the repository when asked to."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infraproof.terraform import REPOSITORY

FOLDER = Path(os.environ.get("MODELYARD_INFRA_RESULTS", REPOSITORY / "build" / "infra"))
#: The figures that the page is written from; MODELYARD_KEEP_FIGURES=1 (`make infra-test-long`) adds to them.
KEPT = REPOSITORY / "tests" / "infra" / "figures.json"
#: One date for the whole session, so that a row made around midnight is one row.
TODAY = datetime.now(UTC).date().isoformat()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Results:
    """A JSON object: topic -> row name -> fields, each row with the day (`at`) on which it was measured."""

    file: Path = FOLDER / "figures.json"
    kept: Path | None = KEPT if os.environ.get("MODELYARD_KEEP_FIGURES") == "1" else None

    def read(self, topic: str) -> dict[str, Any]:
        """The rows of a topic, or nothing when it was never measured."""
        found: dict[str, Any] = loaded(self.file).get(topic, {})
        return found

    def add(self, topic: str, row: str, **fields: Any) -> None:
        """Merge fields into one row; what another day left in it goes, so that a row is one day's word."""
        with alone():
            for file in (self.file, self.kept):
                if file is not None:
                    put(file, topic, row, fields)


@contextmanager
def alone() -> Iterator[None]:
    """One writer at a time, of all threads and of all runs on this machine: none loses another's row."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _LOCK, (FOLDER / "figures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def loaded(file: Path) -> dict[str, Any]:
    """What a file of figures holds; nothing when there is none."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def put(file: Path, topic: str, row: str, fields: dict[str, Any]) -> None:
    """Write one row; the file is whole at every moment."""
    figures = loaded(file)
    before = figures.setdefault(topic, {}).get(row, {})
    figures[topic][row] = {**(before if before.get("at") == TODAY else {}), **fields, "at": TODAY}
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    draft.replace(file)
