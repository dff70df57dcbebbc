"""The command line on a fresh data folder, with nothing of the caller's environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Run
from typer.testing import CliRunner, Result

from modelyard.cli.main import app


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, fresh_logging: None) -> None:
    """No MODELYARD_* of the caller, and no logging set up for the next test."""
    for name in ("DATA", "SERVER", "KEY", "DEBUG", "CONFIG"):
        monkeypatch.delenv(f"MODELYARD_{name}", raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on the folder `tmp_path/data`; refusals stay in `result.exception`."""

    def call(*arguments: str, input: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [*arguments, "--data", str(tmp_path / "data")], input=input)

    return call
