"""Holding a folder to its manifest, for every store that takes one in (promise P5)."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

import msgspec

from modelyard.core.errors import PublishError
from modelyard.models.manifest import FileEntry, Manifest

MANIFEST = "manifest.json"
FOLDER_MODE = 0o700
FILE_MODE = 0o400


def checked_manifest(digest: str, folder: Path) -> Manifest:
    """The manifest in a folder that is to be put under `digest`; PublishError("manifest_invalid")."""
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise wrong(MANIFEST, "a readable manifest", type(error).__name__) from error
    return parsed_manifest(digest, content)


def parsed_manifest(digest: str, content: bytes) -> Manifest:
    """The manifest of `digest`, its paths all inside the version's folder; PublishError("manifest_invalid")."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(MANIFEST, "a readable manifest", type(error).__name__) from error
    if manifest.digest() != digest:
        raise wrong(MANIFEST, digest, manifest.digest())
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or str(path) != entry.path or entry.path in (".", MANIFEST):
            raise wrong(entry.path, "a relative path inside the version's folder", entry.path)
    return manifest


def wrong(field: str, expected: str, got: str) -> PublishError:
    """The refusal of a folder that is not its manifest."""
    return PublishError(
        "manifest_invalid",
        f"`{field}` is not what the manifest says.",
        field=field,
        expected=expected,
        got=got,
    )


def opened(source: Path, entry: FileEntry) -> int:
    """A descriptor of a regular file, for reading; PublishError("manifest_invalid") for anything else."""
    # Not blocking, so that a pipe cannot hold the caller; not following, so that a link shows nothing else.
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise wrong(entry.path, "a regular file", str(error.strerror)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise wrong(entry.path, "a regular file", "something else")
    return handle


def check_content(entry: FileEntry, size_bytes: int, sha256: str) -> None:
    """PublishError("manifest_invalid") unless a file is as large, and of the hash, as the manifest says."""
    if (sha256, size_bytes) != (entry.sha256, entry.size_bytes):
        raise wrong(
            entry.path,
            f"{entry.size_bytes} bytes, SHA-256 {entry.sha256}",
            f"{size_bytes} bytes, SHA-256 {sha256}",
        )
