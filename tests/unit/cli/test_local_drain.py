"""A command on a data folder reads a log that lacks nothing, or says what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.cli.backends.local import LocalBackend
from modelyard.journal.spool import spool_files


@dataclass
class Passes:
    """Services of which only the drain is asked."""

    drain: Callable[[Callable[[], object]], int]


@pytest.mark.parametrize(("files", "stored", "passes", "warned"), [(3, 1, 3, ""), (0, 1, 1, ""), (2, 0, 1, "14 B")])
def test_a_spool_is_brought_in_pass_by_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: int, stored: int, passes: int, warned: str
) -> None:
    """As many passes as it takes, as long as each brings something; what a pass leaves lying is said."""
    backend = LocalBackend(tmp_path)
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    for number in range(files):
        (spool / f"{number:016x}-00000000.spool").write_bytes(b"a frame")
    done: list[int] = []

    def drain(watch: Callable[[], object]) -> int:
        done.append(1)
        for path in (moving := list(spool_files(spool))[:stored]):
            path.unlink()
            watch()
        return len(moving)

    real, backend._services = backend._services, Passes(drain)  # type: ignore[assignment]
    backend._drain()
    real.close()
    assert len(done) == passes
    said = capsys.readouterr().err
    assert (warned in said) if warned else said == ""
