"""Artifacts in memory."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections import Counter
from pathlib import Path

from modelyard.core.errors import PublishError
from modelyard.models.manifest import FileEntry
from modelyard.models.ports import UNTOLD, Steps
from modelyard.storage import refusals
from modelyard.storage.file.checked import FILE_MODE, FOLDER_MODE, MANIFEST, checked_manifest


class MemoryArtifactStore:
    """models.ports.ArtifactStore that holds the bytes in memory and lays them out in a temporary folder on `open`;
    the folder goes with the store. `in_use` counts what was opened and not released, by digest."""

    def __init__(self) -> None:
        self._contents: dict[str, dict[str, bytes]] = {}
        self.in_use: Counter[str] = Counter()
        self._folder = Path(tempfile.mkdtemp(prefix="modelyard-artifacts-"))
        weakref.finalize(self, shutil.rmtree, self._folder, True)

    def put(self, digest: str, folder: Path) -> None:
        """Takes in the files that the manifest lists; PublishError("manifest_invalid")."""
        if digest in self._contents:
            return
        manifest = checked_manifest(digest, folder)
        content = {entry.path: _checked(folder / entry.path, entry) for entry in manifest.files}
        self._contents[digest] = content | {MANIFEST: (folder / MANIFEST).read_bytes()}

    def open(self, digest: str, steps: Steps = UNTOLD) -> Path:
        """The folder of the version, its files read-only; NotFoundError("version_not_found")."""
        with steps.step("resolve"):
            if digest not in self._contents:
                raise refusals.artifact_not_found(digest)
        place = self._folder / digest
        for path, content in self._contents[digest].items():
            target = place / path
            if not target.exists():
                target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
                target.write_bytes(content)
                target.chmod(FILE_MODE)
        self.in_use[digest] += 1
        return place

    def release(self, digest: str) -> None:
        """One use less."""
        if self.in_use[digest]:
            self.in_use[digest] -= 1

    def has(self, digest: str) -> bool:
        """Whether the version is there."""
        return digest in self._contents


def _checked(path: Path, entry: FileEntry) -> bytes:
    regular = path.is_file() and not path.is_symlink()
    content = path.read_bytes() if regular else b""
    if not regular or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise PublishError("manifest_invalid", f"`{entry.path}` is not what the manifest says.", field=entry.path)
    return content
