"""The installation's secret: one for all, private, never half of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.core.errors import SettingsError
from modelyard.storage.file.secret import KEY_FILE, installation_secret


def test_all_who_ask_at_once_get_the_same_secret(tmp_path: Path) -> None:
    """Sixteen askers, one secret of 32 bytes in a private file, nothing beside it; another folder has another."""
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: installation_secret(tmp_path), range(64)))
    assert len(found) == 1
    assert [len(secret) for secret in found] == [32]
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").mkdir()
    assert installation_secret(tmp_path / "other") not in found


def test_a_damaged_secret_is_said(tmp_path: Path) -> None:
    """Half a secret is no secret: joins would silently break."""
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(SettingsError) as caught:
        installation_secret(tmp_path)
    assert caught.value.code == "data_folder_unusable"
