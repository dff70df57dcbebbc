"""How a version's loads look as JSON, over HTTP and on the command line alike."""

from __future__ import annotations

from typing import Any

from modelyard.http.forms.views import time_text
from modelyard.http.processes.loads import LoadFiles
from modelyard.models.loads.timeline import Step, Timeline, rate_mb_s


def loads_view(files: LoadFiles | None, model: str, version: str) -> list[dict[str, Any]]:
    """A version's newest load in each worker of this host; none where no server runs."""
    return [] if files is None else [_load(slot, timeline) for slot, timeline in files.of(model, version)]


def _load(slot: int, timeline: Timeline) -> dict[str, Any]:
    return {
        "worker": slot,
        "state": timeline.state,
        "begun_at": time_text(timeline.begun_at),
        "total_s": _seconds(timeline.total_s),
        "steps": [_step(step) for step in timeline.steps],
        "code": timeline.code or None,
        "reason": timeline.reason or None,
    }


def _step(step: Step) -> dict[str, Any]:
    rate = rate_mb_s(step)
    return {
        "name": step.name,
        "start_s": _seconds(step.start_s),
        "duration_s": _seconds(step.duration_s),
        "size_bytes": step.size_bytes,
        "mb_per_s": None if rate is None else round(rate, 1),
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
