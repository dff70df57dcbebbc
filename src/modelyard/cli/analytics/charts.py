"""Figures to look at: bars in the terminal, pictures in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.cli.backends import Json
from modelyard.core.errors import CommandError

BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 24
_PARTS = " ▏▎▍▌▋▊▉█"
INSTALL = "pip install matplotlib"


def bar(value: float, most: float) -> str:
    """A bar as long as the value's share of the largest."""
    eighths = round(8 * _WIDTH * value / most) if most else 0
    return "█" * (eighths // 8) + _PARTS[eighths % 8].strip()


def save_figures(groups: list[Json], path: Path) -> None:
    """Requests, and latency below: along the time, or a bar for each group. CommandError("file_unreadable")."""
    plt = _pyplot()
    picture, (upper, lower) = plt.subplots(2, sharex=True, figsize=(10, 6), layout="constrained")
    for name, some in _lines(groups).items():
        places = list(range(len(some))) if some[0]["time"] is None else [one["time"][:16] for one in some]
        upper.plot(places, [one["requests"] for one in some], marker=".", label=name or "all")
        for share in ("p50_us", "p99_us"):
            lower.plot(
                places, [one["latency"][share] for one in some], marker=".", label=f"{name} {share[:-3]}".strip()
            )
    upper.set_ylabel("requests")
    lower.set(ylabel="latency, µs", yscale="log")
    for axes in (upper, lower):
        axes.legend(fontsize="small")
    lower.tick_params("x", rotation=60)
    _save(picture, path)


def save_scores(outputs: list[Json], path: Path) -> None:
    """A histogram for each output that is a number. CommandError("file_unreadable")."""
    drawn = [one for one in outputs if one["numbers"] is not None]
    picture, axes = _pyplot().subplots(
        max(1, len(drawn)), figsize=(8, 2.2 * max(1, len(drawn))), squeeze=False, layout="constrained"
    )
    for one, (plot,) in zip(drawn, axes, strict=False):
        bins = one["numbers"]["bins"]
        lows, widths = [each["low"] for each in bins], [each["high"] - each["low"] for each in bins]
        plot.bar(lows, [each["count"] for each in bins], widths, align="edge")
        plot.set_title(f"{one['model']} {one['version']}: {one['output']}", fontsize="small")
    _save(picture, path)


def _lines(groups: list[Json]) -> dict[str, list[Json]]:
    """The groups of each line, by its name; without a time all groups are one."""
    if not groups:
        return {"": [{"time": None, "requests": 0, "latency": {"p50_us": None, "p99_us": None}}]}
    found: dict[str, list[Json]] = {}
    for one in groups:
        names = (one[name] for name in ("endpoint", "model", "version", "client") if one[name] and one["time"])
        found.setdefault(" ".join(names), []).append(one)
    return found


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise CommandError(
            "usage_invalid", f"A picture needs a package that is not installed here: {INSTALL}", field="--png",
            expected="matplotlib", example=INSTALL,
        ) from None  # fmt: skip
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(picture: Any, path: Path) -> None:
    try:
        picture.savefig(path, format="png")
    except OSError as error:
        raise CommandError("file_unreadable", f"`{path}` cannot be written: {error.strerror}.", field="--png") from None
    finally:
        _pyplot().close(picture)
