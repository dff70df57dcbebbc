"""What a call through another process costs, beside the same call in this one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from rich.table import Table

WARM_UP = 200
ROWS = (1, 32, 128, 4096)
Call = Callable[[], Any]


def timed(call: Call, runs: int) -> tuple[float, float]:
    """Median and 99th percentile of a call, in microseconds."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        times.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def hops(calls: Callable[[int], tuple[Call, Call]], runs: int, here: str, there: str) -> Table:
    """A row for each of ROWS. `calls` gives the call in this process and the one through the other for so many rows."""
    table = Table(
        "Rows", f"{here}, p50 (µs)", f"{there}, p50 (µs)", f"{there}, p99 (µs)", "Overhead, p50 (ms)", box=None
    )
    for rows in ROWS:
        direct, through = calls(rows)
        timed(direct, WARM_UP)
        timed(through, WARM_UP)
        plain, _ = timed(direct, runs)
        p50, p99 = timed(through, runs)
        table.add_row(str(rows), f"{plain:.1f}", f"{p50:.1f}", f"{p99:.1f}", f"{(p50 - plain) / 1000:.3f}")
    return table
