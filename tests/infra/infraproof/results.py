"""Keeps what the proof measured as JSON, one file a topic, for docs/infra-proof.md."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infraproof.terraform import REPOSITORY

FOLDER = Path(os.environ.get("MODELYARD_INFRA_RESULTS", REPOSITORY / "build" / "infra"))
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Results:
    """A folder of JSON objects: topic -> row name -> fields."""

    folder: Path = FOLDER

    def read(self, topic: str) -> dict[str, Any]:
        """The rows of a topic, or nothing when it was never measured."""
        file = self.folder / f"{topic}.json"
        loaded: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return loaded

    def add(self, topic: str, row: str, **fields: Any) -> None:
        """Merge fields into one row."""
        with _LOCK:
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = self.read(topic)
            rows[row] = {**rows.get(row, {}), **fields}
            (self.folder / f"{topic}.json").write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
