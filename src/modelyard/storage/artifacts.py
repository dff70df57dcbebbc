"""Which artifact store the settings name."""

from __future__ import annotations

from pathlib import Path

from modelyard.core.clock import Clock
from modelyard.core.settings import ArtifactsSettings
from modelyard.models.ports import ArtifactStore
from modelyard.storage.file.artifacts import FolderArtifactStore
from modelyard.storage.file.cache import ArtifactCache

CACHE_FOLDER = "artifact-cache"


def open_artifacts(settings: ArtifactsSettings, data: Path, clock: Clock) -> ArtifactStore:
    """The bucket of `artifacts.url` with its cache in `data`, or the folder `artifacts` in `data`.

    SettingsError("setting_invalid" | "data_folder_unusable").
    """
    if settings.url is None:
        return FolderArtifactStore(data / "artifacts")
    from modelyard.storage.s3.store import S3ArtifactStore

    return S3ArtifactStore(
        settings, ArtifactCache(data / CACHE_FOLDER, settings.cache_bytes, settings.timeout_s), clock
    )
