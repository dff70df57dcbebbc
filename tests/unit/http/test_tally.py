"""The counters behind the statistics: what was settled is counted once, whoever reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.types import Servable
from modelyard.http.processes.tally import ROWS, SIZES, Counts, Tallies, Tally
from modelyard.testing import servable

TREE = servable()


@dataclass
class Request:
    rows: int = 1


@dataclass
class Settled:
    """A prediction as far as it is counted."""

    started_s: float = 10.1
    ended_s: float = 10.2
    submitted_s: float = 10.0
    status: int = 200
    error: Any = None
    servable: Servable = TREE
    request: Request = field(default_factory=Request)


@pytest.fixture
def tallies(tmp_path: Path) -> Tallies:
    made = Tallies(tmp_path / "tallies")
    made.clear()
    return made


def opened(tallies: Tallies, slot: int = 0, settled_s: float = 10.3) -> Tally:
    tally = tallies.open(slot)
    tally._monotonic, tally._now = lambda: settled_s, lambda: 1_700_000_000.5
    return tally


def note(tally: Tally, *turn: Any) -> None:
    tally.note(turn)


def test_a_turn_of_two_runs(tallies: Tallies) -> None:
    """Requests of one run share its time; rows, runs and sizes are those of the runs."""
    tally = opened(tallies)
    note(tally, Settled(), Settled(request=Request(3)), Settled(started_s=10.2, ended_s=10.25))
    counts = tallies.read()["tree", "1"]
    assert (counts.success, counts.fail, counts.inferences, counts.runs) == (3, 0, 5, 2)
    assert counts.success_ns == pytest.approx(3 * 0.3e9, rel=1e-6)
    assert counts.queue_ns == pytest.approx(2 * 0.1e9 + 0.2e9, rel=1e-6)
    assert counts.infer_ns == pytest.approx(2 * 0.1e9 + 0.05e9, rel=1e-6)
    assert counts.output_ns == pytest.approx(2 * 0.1e9 + 0.05e9, rel=1e-6)
    assert {size: runs for size, (runs, _) in counts.sizes.items()} == {1: 1, 4: 1}
    assert counts.last_ms == 1_700_000_000_500
    tally.close()


def test_failures_are_counted_apart(tallies: Tallies) -> None:
    """Refused, failed and left requests are failures, also beside good ones of the same run."""
    tally = opened(tallies)
    note(tally, Settled(), Settled(error=ValueError(), status=500), Settled(status=0))
    counts = tallies.read()["tree", "1"]
    assert (counts.success, counts.fail, counts.runs, counts.inferences) == (1, 2, 1, 1)
    assert counts.fail_ns == pytest.approx(0.6e9, rel=1e-6)
    tally.close()


def test_workers_are_summed_and_slots_taken_over(tallies: Tallies) -> None:
    """Two workers' counts are one sum; the successor in a slot goes on; a new start begins at nothing."""
    first, second = opened(tallies), opened(tallies, 1)
    note(first, Settled())
    note(second, Settled(), Settled(started_s=10.15, servable=servable(version="2")))
    first.close()
    successor = opened(tallies)
    note(successor, Settled())
    counts = tallies.read()
    assert (counts["tree", "1"].success, counts["tree", "2"].success) == (3, 1)
    successor.close()
    second.close()
    tallies.clear()
    assert tallies.read() == {}


def test_sizes_above_the_exact_ones(tallies: Tallies) -> None:
    """Exactly up to 128 rows, then by the next power of two, and the largest takes all above."""
    tally = opened(tallies)
    for rows in (0, 128, 129, 256, 257, 32_768, 10**6):
        note(tally, Settled(request=Request(rows)))
    sizes = {size: runs for size, (runs, _) in tallies.read()["tree", "1"].sizes.items()}
    assert sizes == {1: 1, 128: 1, 256: 2, 512: 1, SIZES[-1]: 2}
    tally.close()


def test_a_full_file_and_a_foreign_one(tallies: Tallies, tmp_path: Path) -> None:
    """More versions than rows are left out, the others are right; a file of another form is not read."""
    tally = opened(tallies)
    for number in range(ROWS + 3):
        note(
            tally,
            Settled(servable=servable(version=str(number))),
            Settled(servable=servable(version=str(number)), status=0),
        )
    (tmp_path / "tallies" / "worker-9").write_bytes(b"something else")
    counts = tallies.read()
    assert len(counts) == ROWS
    assert {(one.success, one.fail) for one in counts.values()} == {(1, 1)}
    longest = servable(model="m" * 128, version="v" * 128)
    other = opened(tallies, 1)
    note(other, Settled(servable=longest))
    assert tallies.read()["m" * 128, "v" * 128].success == 1
    assert Counts().sizes == {}
    tally.close()
    other.close()
