"""`modelyard analytics`: volumes, errors and latency; scores; two versions beside each other."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.analytics.charts import BARS, bar, save_figures, save_scores
from modelyard.cli.backends import Json, backend
from modelyard.cli.terminal.options import AsJson, Client, Data, Endpoint, KeyText, Model, Server, Until, Version
from modelyard.cli.terminal.output import moment, print_facts, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Volumes, errors, latency and scores of the prediction log.")


class Interval(StrEnum):
    """What figures along the time are of."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


Since = Annotated[str, typer.Option("--since", help="From then on: ISO 8601, or a duration ago (15m, 2h, 7d).")]
Png = Annotated[Path | None, typer.Option("--png", help="Draw a picture too (needs matplotlib).", metavar="FILE")]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help="Whose scores.")]


@app.command("requests")
def requests_(
    by: Annotated[str, typer.Option("--by", help="Some of endpoint, model, version, client, with commas.")] = "",
    interval: Annotated[Interval | None, typer.Option("--interval", help="A line for each, UTC.")] = None,
    since: Since = "24h",
    until: Until = None,
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="Most groups; the largest are shown.")] = 1000,
    png: Png = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Volumes, errors and latency.

    Example: `modelyard analytics requests --by version --interval hour --model fraud`
    """
    asked = {
        "by": by, "interval": interval.value if interval else None, "since": since, "until": until, "model": model,
        "version": version, "client": client, "endpoint": endpoint, "limit": str(limit),
    }  # fmt: skip
    with backend(data, server, key) as work:
        found = work.analytics("requests", _given(asked))
    if png is not None:
        save_figures(found["groups"], png)
    if as_json:
        print_json(found)
        return
    _say_time(found)
    _requests_table(found["groups"])
    if found["left_out"]:
        say(f"{found['left_out']} smaller groups are not shown (--limit).")


def _requests_table(groups: list[Json]) -> None:
    names = [name for name in ("endpoint", "model", "version", "client") if any(one[name] for one in groups)]
    timed = any(one["time"] for one in groups)
    most = max((one["requests"] for one in groups), default=0)
    print_table(
        (*(["Time"] if timed else []), *(name.capitalize() for name in names), "Requests", *([""] if timed else []),
         "4xx", "5xx", "Errors", "p50 µs", "p90 µs", "p99 µs"),
        (
            (*([moment(one["time"])] if timed else []), *(one[name] for name in names), one["requests"],
             *([bar(one["requests"], most)] if timed else []), one["client_errors"], one["server_errors"],
             _percent(one["error_rate"]), *(_whole(one["latency"][name]) for name in ("p50_us", "p90_us", "p99_us")))
            for one in groups
        ),
        "There was no request.",
    )  # fmt: skip


@app.command()
def scores(
    model: OneModel,
    version: Version = None,
    since: Since = "24h",
    until: Until = None,
    png: Png = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """How the outputs of a model's versions are distributed.

    Example: `modelyard analytics scores fraud --since 7d`
    """
    asked = {"model": model, "version": version, "since": since, "until": until}
    with backend(data, server, key) as work:
        found = work.analytics("scores", _given(asked))
    if png is not None:
        save_scores(found["outputs"], png)
    if as_json:
        print_json(found)
        return
    _say_time(found)
    print_table(
        ("Version", "Output", "Count", "Mean", "p1", "p50", "p99", "Distribution"),
        ((one["version"], one["output"], one["count"], *_score_row(one)) for one in found["outputs"]),
        "There was no answer.",
    )


@app.command()
def compare(
    model: OneModel,
    base: Annotated[str, typer.Argument(metavar="BASE", help="The version that is compared with.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The version that is compared.")],
    since: Since = "24h",
    until: Until = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Two versions of a model in the same time: figures, the difference of their error rates, drift of each output.

    Example: `modelyard analytics compare fraud 1 2 --since 7d`
    """
    asked = {"model": model, "base": base, "other": other, "since": since, "until": until}
    with backend(data, server, key) as work:
        found = work.analytics("comparison", _given(asked))
    if as_json:
        print_json(found)
        return
    _say_time(found)
    print_table(
        ("Version", "Requests", "4xx", "5xx", "Errors", "p50 µs", "p90 µs", "p99 µs"),
        (
            (one["version"], one["requests"], one["client_errors"], one["server_errors"], _percent(one["error_rate"]),
             *(_whole(one["latency"][name]) for name in ("p50_us", "p90_us", "p99_us")))
            for one in (found["base"], found["other"])
        ),
        "",
    )  # fmt: skip
    print_facts({"Errors": _difference(found["error_rate_difference"])})
    print_table(
        ("Output", f"Mean of {base}", f"Mean of {other}", "Distance", "Stability index"),
        (
            (one["output"], _mean(one["base"]), _mean(one["other"]),
             *((None, None) if one["drift"] is None else one["drift"].values()))
            for one in found["outputs"]
        ),
        "Neither answered.",
    )  # fmt: skip


def _given(asked: dict[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in asked.items() if text}


def _say_time(found: Json) -> None:
    late = found["pending_minutes"]
    say(f"{moment(found['since'])} to {moment(found['until'])} UTC" + (f", {late} minutes not in yet" if late else ""))


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.3g} %"


def _whole(value: float | None) -> Any:
    return None if value is None else round(value)


def _score_row(one: Json) -> tuple[Any, ...]:
    if one["labels"] is not None:
        shown = [f"{label['label'] or 'others'}: {label['count']}" for label in one["labels"][:8]]
        return (*(None,) * 4, ", ".join(shown))
    if one["numbers"] is None:
        return (None,) * 5
    numbers, places = one["numbers"], one["numbers"]["percentiles"]
    most = max(each["count"] for each in numbers["bins"])
    drawn = "".join(BARS[-(-each["count"] * (len(BARS) - 1) // most) if most else 0] for each in numbers["bins"])
    return numbers["mean"], places["p1"], places["p50"], places["p99"], drawn


def _mean(one: Json | None) -> float | None:
    return None if one is None or one["numbers"] is None else one["numbers"]["mean"]


def _difference(found: Json | None) -> str:
    if found is None:
        return "one of them had no request"
    low, high = 100 * found["low"], 100 * found["high"]
    said = "no difference that could not be chance" if low <= 0 <= high else "a difference"
    return f"{100 * found['difference']:+.3g} points ({low:+.3g} to {high:+.3g}): {said}"
