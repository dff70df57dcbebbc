"""Nothing of the caller's environment, and an installation to copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installation import filled

from modelyard.core.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, fresh_logging: None) -> None:
    """No MODELYARD_* of the caller, and no logging set up for the next test."""
    for name in ("DATA", "CONFIG", "DATABASE__URL", "ARTIFACTS__URL"):
        monkeypatch.delenv(f"MODELYARD_{name}", raising=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation, made once."""
    return filled(tmp_path_factory.mktemp("template") / "data").data


@pytest.fixture
def source(template: Path, tmp_path: Path) -> Settings:
    """An installation in `tmp_path/source`."""
    shutil.copytree(template, tmp_path / "source")
    return load_settings(data=tmp_path / "source")
