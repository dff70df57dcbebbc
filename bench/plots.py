"""The two pictures: how many, and how long."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0b7285", "#adb5bd", "#e8b04a")


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
    servers = list(next(iter(result.values())))
    picture, axes = plt.subplots(figsize=(9, 0.95 * len(cases) + 1.4))
    height = 0.8 / len(servers)
    for n, (server, colour) in enumerate(zip(servers, COLOURS, strict=False)):
        places = [row + n * height for row in range(len(cases))]
        values = [result[case][server][figure] for case in cases]
        bars = axes.barh(places, values, height * 0.92, color=colour, label=server)
        labels = [f"{value:,.0f}" if figure == "requests_per_s" else f"{value:.2f}" for value in values]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks([row + height for row in range(len(cases))], cases)
    axes.invert_yaxis()
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.14)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=len(servers))
    picture.tight_layout()
    picture.savefig(path, dpi=130)
    plt.close(picture)
