"""The waterfall: bars on one axis, in the order of time, never outside it."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.cli.terminal.waterfall import EMPTY, FULL, WIDTH, bar, print_waterfall


@pytest.mark.parametrize(
    ("start_s", "duration_s", "end_s", "first", "cells"),
    [
        (0.0, 1.0, 1.0, 0, WIDTH),
        (0.5, 0.25, 1.0, WIDTH // 2, WIDTH // 4),
        (0.0, 0.0, 1.0, 0, 1),
        (1.0, 9.0, 1.0, WIDTH - 1, 1),
        (0.9, 9.0, 1.0, 43, WIDTH - 43),
    ],
)
def test_a_bar_lies_on_the_axis(start_s: float, duration_s: float, end_s: float, first: int, cells: int) -> None:
    """As long as the axis, whatever the step; one cell at least."""
    drawn = bar(start_s, duration_s, end_s)
    assert drawn == EMPTY * first + FULL * cells + EMPTY * (WIDTH - first - cells)
    assert len(drawn) == WIDTH


def test_a_load_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The worker, the state, each step with its time, size and rate; why it failed, without markup or control codes."""
    steps: list[dict[str, Any]] = [
        {"name": "parse", "start_s": 0.5, "duration_s": 1.5, "size_bytes": 3 * 1024**2, "mb_per_s": 2.1},
        {"name": "wait", "start_s": 0.0, "duration_s": 0.002, "size_bytes": None, "mb_per_s": None},
    ]
    load = {"worker": 3, "state": "failed", "begun_at": "2026-01-01T00:00:00Z", "total_s": 2.0, "steps": steps,
            "code": "model_unreadable", "reason": "[red]no\x1b[0m good"}  # fmt: skip
    print_waterfall([load], "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "worker 3: failed after 2.00 s, begun 2026-01-01T00:00:00Z"
    assert lines[2].split()[:3] == ["wait", "0.0", "ms"]
    assert lines[3].split()[:8] == ["parse", "500.0", "ms", "1.50", "s", "3.0", "MiB", "2"]
    assert lines[4] == "model_unreadable: [red]no\\x1b[0m good"
    print_waterfall([], "none here")
    assert capsys.readouterr().out == "none here\n"
