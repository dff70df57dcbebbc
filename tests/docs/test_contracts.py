"""docs/contracts.md says which suites run on which adapters, as the tests are parametrised now."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "docs" / "contracts.py"


@pytest.fixture(scope="module")
def contracts() -> ModuleType:
    """docs/contracts.py."""
    spec = importlib.util.spec_from_file_location("contracts", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_port_has_a_suite_or_a_reason(contracts: ModuleType) -> None:
    """A new port is named in docs/contracts.py; one that is no more is not; and each suite is there."""
    named = [*contracts.SUITES, *contracts.ALONE]
    assert len(named) == len(set(named))
    assert sorted(set(contracts.ports())) == sorted(named)
    for suite in contracts.SUITES.values():
        assert (ROOT / "tests" / "contract" / f"{suite.file}.py").is_file()


def test_the_page_says_what_the_tests_run_on() -> None:
    """Collected anew in a process of its own. Where it fails: `python docs/contracts.py`."""
    ended = subprocess.run([sys.executable, PROGRAM, "--check"], cwd=ROOT, env=os.environ, timeout=120, check=False)
    assert ended.returncode == 0, "run `python docs/contracts.py`"


def test_all_stores_run_on_every_database(contracts: ModuleType) -> None:
    """No store's suite leaves out a database but those that say so."""
    lines = [line for line in contracts.PAGE.read_text().splitlines() if line.startswith("| `")]
    stores = [line for line in lines if line.count("|") == 8]
    assert len(stores) > 10
    missing = {line.split("`")[1] for line in stores if f" {contracts.MISSING} " in line}
    assert missing == {"analytics.AnalyticsStore", "retention.LeavingRecords"}
