"""Whether the files of a version are the published ones, and stay so while they are read (promise P5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.errors import UnavailableError
from modelyard.models.loads.hashed import HASHED, Identity, identity_of
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.models.stage import RESERVED


def verify(version: Version, folder: Path) -> None:
    """Every file has the published size and SHA-256, and there is no other, or UnavailableError("model_not_ready")."""
    manifest = version.manifest
    if manifest.digest() != version.digest:
        raise _changed(version, "the manifest", version.digest, manifest.digest())
    for entry in manifest.files:
        path = folder / entry.path
        if path.is_symlink() or not path.is_file():
            raise _changed(version, entry.path, entry.sha256, "no file")
        got = HASHED.sha256(path)
        if got != entry.sha256:
            raise _changed(version, entry.path, entry.sha256, got)
    _check_alone(version, folder)
    if manifest.entry not in {entry.path for entry in manifest.files}:
        raise _changed(version, manifest.entry, "a file of the manifest", "none")


@contextmanager
def untouched(version: Version, folder: Path) -> Iterator[None]:
    """What is inside hashes the files and has a library read them, in any order: two readings, between which a file
    may become another and what it was again. UnavailableError("model_not_ready") at the end if one was touched."""
    before = _identities(version.manifest, folder)
    yield
    after = _identities(version.manifest, folder)
    for entry, one, other in zip(version.manifest.files, before, after, strict=True):
        if one is None or one != other:
            raise _changed(version, entry.path, "a file that nobody touches while it is loaded", "another")
    _check_alone(version, folder)


def unnamed(manifest: Manifest) -> Version:
    """For a process that knows a version by its content alone."""
    return Version("", "", manifest.digest(), manifest, 0.0)


def _check_alone(version: Version, folder: Path) -> None:
    listed = {RESERVED, *(entry.path for entry in version.manifest.files)}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in listed and (path.is_symlink() or not path.is_dir()):
            raise _changed(version, name, "a file of the manifest", "another file")


def _identities(manifest: Manifest, folder: Path) -> list[Identity | None]:
    found: list[Identity | None] = []
    for entry in manifest.files:
        try:
            found.append(identity_of((folder / entry.path).lstat()))
        except OSError:
            found.append(None)
    return found


def _changed(version: Version, file: str, expected: str, got: str) -> UnavailableError:
    of = f" of {version.model} version {version.version}" if version.model else ""
    return UnavailableError(
        "model_not_ready",
        f"`{file}`{of} is not what was published.",
        retry_after_s=30,
        field=file,
        expected=expected,
        got=got,
    )
