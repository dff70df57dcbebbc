"""The files of versions in a folder: `<root>/<digest[:2]>/<digest>/`, each with its `manifest.json`.

A version is copied into a temporary folder on the same file system, hashed on the way, synced, and renamed into
place: rename is atomic, so at any kill point the digest is absent or complete (POSIX rename(2); the syncs before and
after make it hold over power loss too).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path, PurePosixPath

import msgspec

from modelyard.core.errors import PublishError, SettingsError, UnavailableError
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.storage.refusals import artifact_not_found

MANIFEST = "manifest.json"
FOLDER_MODE = 0o700
FILE_MODE = 0o400

_TEMPORARY = ".incoming"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024 * 1024
_TRIES = 16


class FolderArtifactStore:
    """models.ports.ArtifactStore in a folder, private to its owner. Several processes may use it at once.

    Opening sweeps what killed processes left behind; SettingsError("data_folder_unusable").
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / _TEMPORARY
        try:
            root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._temporary.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._sweep()
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
            with self._private_folder() as temporary:
                for entry in manifest.files:
                    _copy_checked(folder / entry.path, temporary / entry.path, entry)
                _write(temporary / MANIFEST, (folder / MANIFEST).read_bytes())
                _sync_tree(temporary)
                self._move_in(temporary, digest)
        except OSError as error:
            raise UnavailableError(
                "store_unavailable", f"The artifacts folder cannot be written: {error.strerror}.", retry_after_s=1
            ) from error

    def open(self, digest: str) -> Path:
        """The folder of the version, its files read-only; NotFoundError("version_not_found")."""
        if not self.has(digest):
            raise artifact_not_found(digest)
        return self._place(digest)

    def has(self, digest: str) -> bool:
        """Whether the version is there, complete."""
        return _DIGEST.fullmatch(digest) is not None and (self._place(digest) / MANIFEST).is_file()

    def _place(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def _move_in(self, temporary: Path, digest: str) -> None:
        place = self._place(digest)
        place.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        _sync_folder(self._root)
        try:
            temporary.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return  # another process put the same content first
        _sync_folder(place.parent)

    @contextmanager
    def _private_folder(self) -> Iterator[Path]:
        """A temporary folder that no sweep touches while this process lives, gone in the end."""
        temporary, lock = self._locked_folder()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)

    def _locked_folder(self) -> tuple[Path, int]:
        # A sweep may take the folder between its making and its locking; then another one is made.
        for _ in range(_TRIES):
            temporary = self._temporary / secrets.token_hex(8)
            temporary.mkdir(mode=FOLDER_MODE)
            try:
                lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            if _locked(lock) and temporary.exists():
                return temporary, lock
            os.close(lock)
        raise UnavailableError("store_unavailable", "No temporary folder could be made.", retry_after_s=1)

    def _sweep(self) -> None:
        for leftover in self._temporary.iterdir():
            try:
                lock = os.open(leftover, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                if _locked(lock):
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


def checked_manifest(digest: str, folder: Path) -> Manifest:
    """The manifest in a folder that is to be put under `digest`; PublishError("manifest_invalid")."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(MANIFEST, "a readable manifest", type(error).__name__) from error
    if manifest.digest() != digest:
        raise _wrong(MANIFEST, digest, manifest.digest())
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or str(path) != entry.path or entry.path in (".", MANIFEST):
            raise _wrong(entry.path, "a relative path inside the version's folder", entry.path)
    return manifest


def _wrong(field: str, expected: str, got: str) -> PublishError:
    return PublishError(
        "manifest_invalid",
        f"`{field}` is not what the manifest says.",
        field=field,
        expected=expected,
        got=got,
    )


def _copy_checked(source: Path, target: Path, entry: FileEntry) -> None:
    target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    seen, size_bytes = hashlib.sha256(), 0
    reading = _opened(source, entry)
    with open(reading, "rb") as reader, open(target, "xb", opener=_private) as writer:
        while block := reader.read(_COPY_BYTES):
            seen.update(block)
            size_bytes += len(block)
            writer.write(block)
        _finish(writer)
    if (seen.hexdigest(), size_bytes) != (entry.sha256, entry.size_bytes):
        raise _wrong(
            entry.path,
            f"{entry.size_bytes} bytes, SHA-256 {entry.sha256}",
            f"{size_bytes} bytes, SHA-256 {seen.hexdigest()}",
        )


def _opened(source: Path, entry: FileEntry) -> int:
    # Not blocking, so that a pipe cannot hold the caller; not following, so that a link shows nothing else.
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _wrong(entry.path, "a regular file", str(error.strerror)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _wrong(entry.path, "a regular file", "something else")
    return handle


def _write(target: Path, content: bytes) -> None:
    with open(target, "xb", opener=_private) as writer:
        writer.write(content)
        _finish(writer)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _finish(writer: BufferedWriter) -> None:
    writer.flush()
    os.fchmod(writer.fileno(), FILE_MODE)
    os.fsync(writer.fileno())


def _sync_tree(folder: Path) -> None:
    for inner, _folders, _files in os.walk(folder, topdown=False):
        _sync_folder(Path(inner))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
