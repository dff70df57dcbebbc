"""The files of versions in a folder: `<root>/<digest[:2]>/<digest>/`, each with its `manifest.json`.

A version is copied into a temporary folder on the same file system, hashed on the way, synced, and renamed into
place (storage/file/incoming.py).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.models.manifest import FileEntry
from modelyard.models.ports import UNTOLD, Steps
from modelyard.storage.file.checked import FOLDER_MODE, MANIFEST, check_content, checked_manifest, opened
from modelyard.storage.file.incoming import Incoming, finish, private
from modelyard.storage.refusals import artifact_not_found

DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024 * 1024


class FolderArtifactStore:
    """models.ports.ArtifactStore in a folder, private to its owner. Several processes may use it at once.

    Opening sweeps what killed processes left behind; SettingsError("data_folder_unusable").
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = Incoming(root)
        try:
            self._incoming.prepare()
        except OSError as error:
            raise SettingsError(
                "data_folder_unusable", f"The artifacts folder cannot be used: {error.strerror}.", field="data"
            ) from error

    def put(self, digest: str, folder: Path) -> None:
        """Copies in the files that `folder/manifest.json` lists, with their hashes checked on the way.

        Does nothing if the digest is there. PublishError("manifest_invalid") if the manifest is not the digest's or
        a file differs from it; UnavailableError("store_unavailable") if the disk refuses. Either leaves nothing.
        """
        if self.has(digest):
            return
        manifest = checked_manifest(digest, folder)
        try:
            with self._incoming.folder() as temporary:
                for entry in manifest.files:
                    _copy_checked(folder / entry.path, temporary / entry.path, entry)
                _write(temporary / MANIFEST, (folder / MANIFEST).read_bytes())
                self._incoming.move_in(temporary, self._place(digest))
        except OSError as error:
            raise UnavailableError(
                "store_unavailable", f"The artifacts folder cannot be written: {error.strerror}.", retry_after_s=1
            ) from error

    def open(self, digest: str, steps: Steps = UNTOLD) -> Path:
        """The folder of the version, its files read-only; NotFoundError("version_not_found")."""
        with steps.step("resolve"):
            if not self.has(digest):
                raise artifact_not_found(digest)
            return self._place(digest)

    def release(self, digest: str) -> None:
        """Changes nothing: nothing is ever removed."""

    def has(self, digest: str) -> bool:
        """Whether the version is there, complete."""
        return DIGEST.fullmatch(digest) is not None and (self._place(digest) / MANIFEST).is_file()

    def _place(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


def _copy_checked(source: Path, target: Path, entry: FileEntry) -> None:
    target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    seen, size_bytes = hashlib.sha256(), 0
    reading = opened(source, entry)
    with open(reading, "rb") as reader, open(target, "xb", opener=private) as writer:
        while block := reader.read(_COPY_BYTES):
            seen.update(block)
            size_bytes += len(block)
            writer.write(block)
        finish(writer)
    check_content(entry, size_bytes, seen.hexdigest())


def _write(target: Path, content: bytes) -> None:
    with open(target, "xb", opener=private) as writer:
        writer.write(content)
        finish(writer)
