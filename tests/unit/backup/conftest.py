"""A data folder with a version, a key, records and outcomes, and a backup of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.auth.keys import KeyIssuer
from modelyard.backup.create import create
from modelyard.core.settings import Settings, load_settings
from modelyard.journal.ports import SpoolPosition
from modelyard.models.ports import Version
from modelyard.storage.file.secret import installation_secret
from modelyard.storage.sql.open import open_stores
from modelyard.testing import FakeClock, prediction_record, version_folder


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, fresh_logging: None) -> None:
    """No MODELYARD_* of the caller, no TMPDIR, and no logging set up for the next test."""
    for name in ("MODELYARD_DATA", "MODELYARD_CONFIG", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a folder with one version of two files, one key and three records."""
    found = load_settings(data=tmp_path / "data")
    stores = open_stores(found, found.data, FakeClock())
    made = version_folder(tmp_path / "source", {"stub.json": b'{"k": 2.0}', "deep/more.bin": bytes(5000)})
    stores.artifacts.put(made.digest(), tmp_path / "source")
    stores.registry.add_version(Version("tree", "1", made.digest(), made, 0.0))
    KeyIssuer(stores.keys, FakeClock()).create("acme", scopes=["predict"])
    stores.sink.store([prediction_record(f"p{number}") for number in range(3)], SpoolPosition("old", 0))
    stores.close()
    installation_secret(found.data)
    return found


@pytest.fixture(params=["backup", "backup.tar"])
def backup(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Path:
    """A backup of it, as a folder and as an archive."""
    out = tmp_path / str(request.param)
    create(settings, out, FakeClock(), 0.0)
    return out
