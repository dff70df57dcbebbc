"""Analytics in the words of callers. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from modelyard.analytics.cells import Figures
from modelyard.analytics.comparison import error_rate
from modelyard.analytics.desk import AnalyticsDesk, Compared
from modelyard.analytics.histogram import SCORE_UNIT, percentiles, ranked, score_middle, unpacked
from modelyard.analytics.ports import Selection
from modelyard.analytics.scores import Scores
from modelyard.core.errors import ConflictError, InvalidRequestError
from modelyard.http.forms.asking import parse_time
from modelyard.http.forms.views import time_text

Json = dict[str, Any]

DEFAULT_SINCE = "24h"
DEFAULT_GROUPS, MAX_GROUPS = 1000, 5000
SCORE_BINS = 20
"""Bins of a distribution in an answer, of equal width between the least and the largest score."""
_SHARES = (0.5, 0.9, 0.99)
_SCORE_SHARES = {"p1": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99}
_NAMES = ("model", "version", "client", "endpoint")


def desk_of(analytics: AnalyticsDesk | None) -> AnalyticsDesk:
    """The desk; ConflictError("analytics_unsupported") where the database has no rollups."""
    if analytics is None:
        raise ConflictError(
            "analytics_unsupported",
            "The database of this server keeps no figures.",
            field="database.url",
            expected="SQLite, PostgreSQL or MySQL",
        )
    return analytics


def selection(asked: Mapping[str, str | None], now: float) -> Selection:
    """Which requests: `since`, `until`, and names; the last day if nothing says otherwise."""
    since = parse_time(asked.get("since") or DEFAULT_SINCE, "since", now)
    ends = asked.get("until")
    until = parse_time(ends, "until", now) if ends else now
    return Selection(since, until, **{name: asked.get(name) or None for name in _NAMES})


def requests_view(desk: AnalyticsDesk, asked: Mapping[str, str | None], now: float) -> Json:
    """Volumes, errors and latency by group: along the time, else the largest first."""
    by = [name.strip() for name in (asked.get("by") or "").split(",") if name.strip()]
    interval = asked.get("interval") or None
    limit = _limit(asked.get("limit"))
    counted = desk.count(selection(asked, now), by, interval)
    groups = sorted(counted.groups.items(), key=lambda pair: (-pair[1].requests, pair[0]))
    shown = groups[:limit]
    if interval:
        shown.sort(key=lambda pair: (pair[0][0], -pair[1].requests, pair[0][1:]))
    return {
        **_time(counted.since, counted.until, counted.pending),
        "groups": [_group(key, by, interval) | figures_view(figures) for key, figures in shown],
        "left_out": len(groups) - len(shown),
    }


def scores_view(desk: AnalyticsDesk, asked: Mapping[str, str | None], now: float) -> Json:
    """Distributions of every output of the versions of a model."""
    scored = desk.scores(_of_model(asked, now))
    return {
        **_time(scored.since, scored.until, scored.pending),
        "outputs": [
            {"model": model, "version": version, "output": output} | score_view(scores)
            for (model, version, output), scores in sorted(scored.outputs.items())
        ],
    }


def comparison_view(desk: AnalyticsDesk, asked: Mapping[str, str | None], now: float) -> Json:
    """Two versions of a model beside each other."""
    chosen = _of_model(asked, now)
    base, other = (str(asked.get(name) or "") for name in ("base", "other"))
    found: Compared = desk.compare(chosen, base, other)
    return {
        **_time(found.since, found.until, found.pending),
        "model": chosen.model,
        "base": {"version": base} | figures_view(found.base),
        "other": {"version": other} | figures_view(found.other),
        "error_rate_difference": None if found.errors is None else msgspec.to_builtins(found.errors),
        "outputs": [
            {
                "output": output,
                "base": None if one is None else score_view(one),
                "other": None if two is None else score_view(two),
                "drift": None if drift is None else msgspec.to_builtins(drift),
            }
            for output, (one, two, drift) in found.outputs.items()
        ],
    }


def figures_view(figures: Figures) -> Json:
    """The figures of one group."""
    p50, p90, p99 = percentiles(figures.latency, _SHARES)
    return {
        "requests": figures.requests,
        "items": figures.items,
        "answered": figures.answered,
        "client_errors": figures.client_errors,
        "server_errors": figures.server_errors,
        "error_rate": error_rate(figures),
        "latency": {
            "mean_us": figures.total_us / figures.answered if figures.answered else None,
            "p50_us": p50, "p90_us": p90, "p99_us": p99,
            "max_us": figures.max_us if figures.answered else None,
        },
        "sizes": {"request_bytes": figures.request_bytes, "answer_bytes": figures.answer_bytes},
    }  # fmt: skip


def score_view(scores: Scores) -> Json:
    """The distribution of one output."""
    return {
        "count": scores.count,
        "sampled": scores.sampled,
        "numbers": _numbers(scores) if scores.numbers else None,
        "labels": None if scores.numbers and scores.other else _labels(scores),
    }


def _numbers(scores: Scores) -> Json:
    places = ranked(scores.bins, list(_SCORE_SHARES.values()))
    shown = {
        name: min(max(score_middle(place), scores.least), scores.largest)
        for name, place in zip(_SCORE_SHARES, places, strict=True)
        if place is not None
    }
    return {
        "mean": scores.total / scores.numbers, "min": scores.least, "max": scores.largest,
        "percentiles": shown, "bins": _bins(scores),
    }  # fmt: skip


def _bins(scores: Scores) -> list[Json]:
    """Bins of equal width; each kept one goes where its middle lies."""
    low, high = scores.least, scores.largest
    step = max((high - low) / SCORE_BINS, SCORE_UNIT)
    counts = [0] * SCORE_BINS
    for place, count in unpacked(scores.bins).items():
        counts[min(max(int((score_middle(place) - low) / step), 0), SCORE_BINS - 1)] += count
    return [
        {"low": low + number * step, "high": low + (number + 1) * step, "count": count}
        for number, count in enumerate(counts)
    ]


def _labels(scores: Scores) -> list[Json] | None:
    if not scores.labels:
        return None
    found = [
        {"label": label, "count": count} for label, count in sorted(scores.labels.items(), key=lambda p: (-p[1], p[0]))
    ]
    return [*found, {"label": None, "count": scores.other}] if scores.other else found


def _time(since: int, until: int, pending: int) -> Json:
    return {"since": time_text(float(since)), "until": time_text(float(until)), "pending_minutes": pending}


def _group(key: tuple[int | str, ...], by: Sequence[str], interval: str | None) -> Json:
    named = dict(zip(by, key[1:] if interval else key, strict=True))
    return {"time": time_text(float(key[0])) if interval else None, **{name: named.get(name) for name in _NAMES}}


def _of_model(asked: Mapping[str, str | None], now: float) -> Selection:
    chosen = selection(asked, now)
    if chosen.model is None:
        raise InvalidRequestError(
            "parameter_invalid", "Scores are of one model: name it.", field="model", expected="a model's name",
            example="fraud",
        )  # fmt: skip
    return chosen


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_GROUPS
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_GROUPS:
        return int(text)
    raise InvalidRequestError(
        "parameter_invalid", "That many groups cannot be given.", field="limit", expected=f"1 to {MAX_GROUPS}",
        got=text[:40],
    )  # fmt: skip


FIGURES: Mapping[str, Callable[[AnalyticsDesk, Mapping[str, str | None], float], Json]] = {
    "requests": requests_view,
    "scores": scores_view,
    "comparison": comparison_view,
}
"""What can be asked, by the name of its route."""
