"""The jail without a model: which protections hold on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import ModelError
from modelyard.runtimes.jail.process import JailBounds, JailProcess, What

ENTRY = "nothing"
STARTS = "start"


def probe(bounds: Mapping[str, Any]) -> dict[str, str]:
    """Each protection, with "" if it holds, else why it does not. Starts a jail on an empty folder, and ends it."""
    with tempfile.TemporaryDirectory(prefix="modelyard-jail-") as made:
        (Path(made) / ENTRY).touch()
        process = JailProcess(What(Path(made), ENTRY, "python"), JailBounds.of({"jail": bounds}))
        try:
            return process.protections()
        except ModelError as error:
            return {STARTS: error.message}
        finally:
            process.kill()
