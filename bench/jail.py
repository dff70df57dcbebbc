"""`python -m bench.jail`: what a call through the jail costs, beside the same class called in this process."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.hop import Call, hops
from modelyard.core.types import Signature, TensorSpec
from modelyard.runtimes.jail.model import JailedModel
from modelyard.runtimes.jail.process import JailBounds, What

COLUMNS = 30
SOURCE = """
class Model:
    def load(self, folder):
        pass

    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""
SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, COLUMNS)),), (TensorSpec("y", "FP64", (-1, COLUMNS)),))


def main() -> None:
    """Prints p50 and p99 by rows, in process and through the jail, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "model"
        folder.mkdir()
        (folder / "mine.py").write_text(SOURCE)
        (folder / "python.json").write_text(json.dumps({"python_class": "mine:Model"}))
        begun = time.monotonic()
        loaded = JailedModel(What(folder, "python.json", "python"), JailBounds(), SIGNATURE)
        started_s = time.monotonic() - begun
        space: dict[str, Any] = {}
        exec(SOURCE, space)
        own = space["Model"]()

        def calls(rows: int) -> tuple[Call, Call]:
            given = {"x": np.ones((rows, COLUMNS))}
            return partial(own.predict, given), partial(loaded.run, given, ())

        table = hops(calls, runs, "In process", "Jailed")
        loaded.close()
    Console(width=120).print(table)
    Console().print(f"Start, confinement, trials and load: {started_s * 1000:.0f} ms")


if __name__ == "__main__":
    main()
