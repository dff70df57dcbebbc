"""A private copy of what is to be published: nobody else can change it between the check and the store."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from modelyard.core.errors import InvalidRequestError, PublishError, TooLargeError
from modelyard.models.manifest import FileEntry

MAX_FILES = 10_000
MAX_DEPTH = 16
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
"""Of a whole path: with the folder before it, it must be one that the kernel takes (4,096), and a key in a bucket."""
CHUNK_BYTES = 1024 * 1024
RESERVED = "manifest.json"
"""The artifact store writes it beside the files."""


def stage_file(source: Path, target: Path, name: str, max_bytes: int) -> FileEntry:
    """Copies one regular file to `target/name`, hashing what was copied.

    PublishError("archive_unsafe") for a link or a device; TooLargeError beyond `max_bytes`.
    """
    descriptor = _open(str(source), None)
    return _copy(descriptor, target, name, max_bytes, links=True)


def stage_folder(source: Path, target: Path | None, max_bytes: int) -> list[FileEntry]:
    """Copies a folder's regular files, hashing what was copied (None: hashes alone), by path. Symbolic and hard links,
    devices, sockets, pipes and names that no archive should hold are PublishError("archive_unsafe")."""
    entries: list[FileEntry] = []
    left = max_bytes
    for root, folders, files, descriptor in os.fwalk(source, follow_symlinks=False):
        base = Path(root).relative_to(source)
        if len(base.parts) >= MAX_DEPTH and folders:
            raise unsafe(str(base), f"folders at most {MAX_DEPTH} deep")
        for name in folders:
            check_path((base / name).as_posix())
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise unsafe((base / name).as_posix(), "no links")
        for name in files:
            path = check_path((base / name).as_posix())
            if len(entries) >= MAX_FILES:
                raise unsafe(path, f"at most {MAX_FILES} files")
            entries.append(_copy(_open(name, descriptor), target, path, left, links=False, bound=max_bytes))
            left -= entries[-1].size_bytes
    return sorted(entries, key=lambda entry: entry.path)


def hash_file(source: Path, max_bytes: int) -> FileEntry:
    """As `stage_file`, without a copy."""
    return _copy(_open(str(source), None), None, source.name, max_bytes, links=True)


def hash_folder(source: Path, max_bytes: int) -> list[FileEntry]:
    """As `stage_folder`, without copies."""
    return stage_folder(source, None, max_bytes)


def check_path(path: str) -> str:
    """The path, if it stays inside its folder on every system: relative, printable, no `..`, no backslash."""
    parts = path.split("/")
    good = (
        path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME_BYTES for part in parts)
        and len(parts) <= MAX_DEPTH + 1
        and len(path.encode()) <= MAX_PATH_BYTES
    )
    if not good:
        raise unsafe(path, f"relative, printable paths without `..`, of at most {MAX_PATH_BYTES} bytes")
    if path == RESERVED:
        raise PublishError(
            "manifest_invalid",
            f"`{RESERVED}` is written by Modelyard; describe the model in `modelyard.json`.",
            field=RESERVED,
        )
    return path


def unsafe(path: str, expected: str) -> PublishError:
    """A path or a kind of file that is refused."""
    shown = ascii(path)[1:-1][:200]
    return PublishError(
        "archive_unsafe", f"`{shown}` is refused: {expected}.", field="files", expected=expected, got=shown
    )


def too_large(max_bytes: int) -> TooLargeError:
    """More bytes than a version may hold."""
    return TooLargeError(
        "body_too_large",
        f"The model is larger than {max_bytes} bytes.",
        field="models.max_version_bytes",
        expected=f"at most {max_bytes} bytes",
    )


def _open(name: str, folder: int | None) -> int:
    """Opens without following a link and without waiting for the other end of a pipe."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise InvalidRequestError(
            "parameter_invalid", f"There is no file `{Path(name).name}`.", field="source", got=Path(name).name
        ) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise unsafe(Path(name).name, "files that can be read") from None
        raise unsafe(Path(name).name, "only regular files, no links or devices") from None


def _copy(descriptor: int, target: Path | None, path: str, left: int, *, links: bool, bound: int = 0) -> FileEntry:
    """Copies an open file, or only reads it. `links`: whether other names for the same file are accepted (a file named
    by its owner)."""
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise unsafe(path, "only regular files")
        if status.st_nlink > 1 and not links:
            raise unsafe(path, "no hard links")
        digest, size = hashlib.sha256(), 0
        with _made(target, path) as out:
            while chunk := source.read(CHUNK_BYTES):
                size += len(chunk)
                if size > left:
                    raise too_large(bound or left)
                digest.update(chunk)
                if out is not None:
                    out.write(chunk)
    return FileEntry(path, digest.hexdigest(), size)


def _made(target: Path | None, path: str) -> AbstractContextManager[BinaryIO | None]:
    """A file that was not there before, open for writing."""
    if target is None:
        return nullcontext()
    place = target / path
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
