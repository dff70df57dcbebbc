"""The page of figures is what `make infra-proof` writes from the figures and the sources, and no figure gets lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infraproof import results
from infraproof.results import KEPT, TODAY, Results
from proof_page import PAGE, page

#: Written before any test of this session adds a figure: the long form keeps its own while it runs.
EXPECTED = page(Results(KEPT))
WRITERS, ROWS = 3, 20
WRITER = """
import sys
from pathlib import Path
from infraproof.results import Results
for row in range(int(sys.argv[3])):
    Results(Path(sys.argv[1]), None).add("plans", f"{sys.argv[2]} {row}", resources=row)
"""


def test_the_page_is_written_from_the_figures() -> None:
    """docs/infra-proof.md is up to date: no figure in it was written by hand, none is missing."""
    assert PAGE.read_text() == EXPECTED, "run `make infra-proof`"


def test_runs_at_the_same_time_keep_each_others_rows(tmp_path: Path) -> None:
    """Three runs that write into one file lose no row of any."""
    file, folder = tmp_path / "figures.json", Path(results.__file__).parents[1]
    command = [sys.executable, "-c", WRITER, str(file)]
    running = [subprocess.Popen([*command, str(n), str(ROWS)], cwd=folder) for n in range(WRITERS)]
    assert [run.wait(timeout=60) for run in running] == [0] * WRITERS
    assert len(Results(file, None).read("plans")) == WRITERS * ROWS


def test_a_row_is_one_days_word(tmp_path: Path) -> None:
    """Fields of one day add up in a row; what an earlier day left in it goes when the row is measured again."""
    file = tmp_path / "figures.json"
    file.write_text(
        '{"plans": {"a": {"resources": 1, "checkov_failed": 0, "at": "2026-01-01"}, "b": {"at": "2026-01-01"}}}'
    )
    kept = Results(file, None)
    kept.add("plans", "a", resources=2)
    kept.add("plans", "a", checks=3)
    assert kept.read("plans") == {"a": {"resources": 2, "checks": 3, "at": TODAY}, "b": {"at": "2026-01-01"}}
