"""The two pictures: how many, and how long."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0b7285", "#adb5bd", "#e8b04a", "#d9a7a0", "#7b8ba3", "#b8c9a1")


def plot(result: dict[str, dict[str, dict[str, float]]], folder: Path) -> None:
    """Writes throughput.png and latency.png."""
    _bars(
        result,
        "requests_per_s",
        "requests per second, one server core (longer is better)",
        folder / "throughput.png",
        False,
    )
    _bars(result, "p99_ms", "99th percentile, ms (shorter is better; logarithmic)", folder / "latency.png", True)


def _bars(
    result: dict[str, dict[str, dict[str, float]]], figure: str, title: str, path: Path, logarithmic: bool
) -> None:
    cases = list(result)
    servers = list(dict.fromkeys(server for case in result.values() for server in case))
    picture, axes = plt.subplots(figsize=(9, 0.24 * sum(map(len, result.values())) + 0.25 * len(cases) + 1.4))
    places, middles, at = {}, [], 0.0
    for case in cases:
        middles.append(at + (len(result[case]) - 1) / 2)
        for server in (one for one in servers if one in result[case]):
            places[case, server] = at
            at += 1
        at += 0.7
    for server, colour in zip(servers, COLOURS, strict=False):
        measured = [case for case in cases if server in result[case]]
        values = [result[case][server][figure] for case in measured]
        bars = axes.barh([places[case, server] for case in measured], values, 0.92, color=colour, label=server)
        labels = [f"{value:,.0f}" if figure == "requests_per_s" else f"{value:.2f}" for value in values]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(middles, cases)
    axes.invert_yaxis()
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.14)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)
    picture.tight_layout()
    picture.savefig(path, dpi=130)
    plt.close(picture)
