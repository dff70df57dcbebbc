"""Steps as bars on one axis of time: a waterfall for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from modelyard.cli.terminal.output import cell, size_text, standard_output

WIDTH = 48
"""Cells of the axis."""
FULL, EMPTY = "█", "·"


def print_waterfall(loads: Sequence[Mapping[str, Any]], empty: str) -> None:
    """One table for each load (`GET /v1/models/{model}/versions/{version}`, `loads`), or the sentence `empty`."""
    console = standard_output()
    if not loads:
        console.print(Text(empty, style="dim"))
    for load in loads:
        console.print(Text(_title(load), style="bold"))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column, justify in (("Step", "left"), ("At", "right"), ("Took", "right"), ("Size", "right"),
                                ("MB/s", "right"), ("", "left")):  # fmt: skip
            table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for row in _rows(load["steps"]):
            table.add_row(*map(Text, row))
        console.print(table)
        if load["reason"]:
            console.print(Text(cell(f"{load['code']}: {load['reason']}")), soft_wrap=True)


def _title(load: Mapping[str, Any]) -> str:
    took = "" if load["total_s"] is None else f" after {duration_text(load['total_s'])}"
    return f"worker {load['worker']}: {load['state']}{took}, begun {cell(load['begun_at'])}"


def _rows(steps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    end_s = max((step["start_s"] + step["duration_s"] for step in steps if step["name"] != "first_answer"), default=0.0)
    for step in sorted(steps, key=lambda step: step["start_s"]):
        size, rate = step["size_bytes"], step["mb_per_s"]
        yield (
            cell(step["name"]),
            duration_text(step["start_s"]),
            duration_text(step["duration_s"]),
            "" if size is None else size_text(size),
            "" if rate is None else f"{rate:,.0f}",
            bar(step["start_s"], step["duration_s"], end_s),
        )


def bar(start_s: float, duration_s: float, end_s: float) -> str:
    """Where the step lies between 0 and `end_s`: at least one cell, and none beyond the axis."""
    if end_s <= 0:
        return FULL
    first = min(WIDTH - 1, int(start_s / end_s * WIDTH))
    cells = max(1, round(duration_s / end_s * WIDTH))
    cells = min(cells, WIDTH - first)
    return EMPTY * first + FULL * cells + EMPTY * (WIDTH - first - cells)


def duration_text(seconds: float) -> str:
    """Milliseconds below a second, seconds above."""
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"
