"""Fixtures of the models station."""

from __future__ import annotations

from pathlib import Path

import pytest
from publish_yard import Yard  # type: ignore[import-not-found]

from modelyard.core.settings import load_settings


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A yard in a fresh data folder."""
    return Yard(load_settings(data=tmp_path / "data"))
