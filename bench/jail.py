"""`python -m bench.jail`: what a call through the jail costs, beside the same class called in this process."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

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


def timed(call: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Median and 99th percentile of a call, in microseconds."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        times.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def main() -> None:
    """Prints p50 and p99 by rows, in process and through the jail, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    runs = parser.parse_args().runs
    heads = ("Rows", "In process, p50 (µs)", "Jailed, p50 (µs)", "Jailed, p99 (µs)", "Overhead, p50 (ms)")
    table = Table(*heads, box=None)
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
        for rows in (1, 32, 128, 4096):
            given = {"x": np.ones((rows, COLUMNS))}
            direct, through = partial(own.predict, given), partial(loaded.run, given, ())
            timed(direct, 200)
            timed(through, 200)
            plain, _ = timed(direct, runs)
            p50, p99 = timed(through, runs)
            table.add_row(str(rows), f"{plain:.1f}", f"{p50:.1f}", f"{p99:.1f}", f"{(p50 - plain) / 1000:.3f}")
        loaded.close()
    Console(width=120).print(table)
    Console().print(f"Start, confinement, trials and load: {started_s * 1000:.0f} ms")


if __name__ == "__main__":
    main()
