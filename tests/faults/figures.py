"""Where the figures of the long runs are kept, for docs/promises.md."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

KEPT = Path(__file__).parent / "figures.json"
WRITE = os.environ.get("MODELYARD_KEEP_FIGURES") == "1"
"""Set by `make test-long`: a short run prints, and keeps nothing."""


def record(name: str, **figures: Any) -> None:
    """Prints the figures of a test; `name` begins with the identifiers that it is for. In a long run they are kept."""
    print(f"\n{name}: " + ", ".join(f"{word.replace('_', ' ')} {figure}" for word, figure in figures.items()))
    if WRITE:
        kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        kept[name] = {"at": time.strftime("%Y-%m-%d", time.gmtime()), **figures}
        KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
