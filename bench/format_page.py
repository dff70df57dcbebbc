"""The documentation's page of what `python -m bench.formats` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATA = "breast_cancer"
BATCH, CONNECTIONS = 100, 4
COLUMNS = {
    "publish": "publish", "signature": "signature found", "equal_rows": "rows served as offline", "batched": "batched",
    "in_process_us": "one row in process", "paced_us": "the same after a pause", "served_us": "one row over HTTP",
    "above_us": "above in process", "small_ratio": "batches, small model", "working_ratio": "batches, working size",
    "jail": "jail",
}  # fmt: skip


def page(record: Mapping[str, Any]) -> str:
    """The whole page."""
    head = ["format", *COLUMNS.values()]
    rows = [[f"`{name}`", *cells(figures)] for name, figures in record["formats"].items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    ran = record["machine"]
    return (
        "# Formats, measured\n\n<!-- Written by `python -m bench.formats`; do not change the page, run it. -->\n\n"
        f"Each format is trained on a real table ({DATA.replace('_', ' ')}, a third of it held out), published by the "
        "command line, and asked for every held-out row over HTTP.\n"
        "A row counts as served if each number and label is what the format's own library answers offline.\n\n"
        "Times are medians of one row.\n"
        "In process are the library's own calls, one after another; after a pause of a millisecond, as between "
        "requests, the caches hold other things.\n"
        "Over HTTP is one connection of `wrk`: JSON, with key, limit and log.\n\n"
        f"Batches are {BATCH} rows, sent in binary on {CONNECTIONS} connections.\n"
        "The figure is what is served a second as a share of what the library does in process with as many threads.\n"
        "A small model takes less time than its request.\n"
        "The working size is 1,000 trees, a forest of 200, or a perceptron 784-1024-1024-10, on the digits.\n\n"
        "The server has one core with its jails, one worker, one thread for each model; the generator, the drain and "
        "the library in process have another.\n"
        "Formats that are programs run in a jail; Python classes and pickles are signed by a trusted key.\n\n"
        f"{table}\n\n"
        f"{record['at']}, {ran['cpu']}, {ran['cores']} cores, load {record['load']:.1f} before the start, "
        f"Python {ran['python']}, {record['passes']} passes in turn, `journal.durability = process`: "
        "`python -m bench.formats`.\n"
    )


def cells(figures: Mapping[str, Any]) -> list[str]:
    """A format's row; – for what was not measured of it."""
    return [_cell(column, figures[column]) if column in figures else "–" for column in COLUMNS]


def _cell(column: str, value: Any) -> str:
    if column.endswith("_us"):
        return f"{value:.0f} µs"
    return f"{value:.2f}" if column.endswith("_ratio") else str(value)
