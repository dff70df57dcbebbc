"""What a backup says of itself: `backup.json`, and beside it `backup.json.sha256` in the form of `sha256sum`.

The manifest is written last. A folder or an archive without it is no backup, whatever else it holds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from modelyard.audit.chain import Head
from modelyard.core.errors import CommandError

NAME, SUM_NAME = "backup.json", "backup.json.sha256"
PRODUCT = "modelyard"
FORMAT = 1
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
"""A manifest is read whole; one of a million files is smaller."""
COPY_BYTES = 1024 * 1024

DATABASE, AUDIT_HEAD, SECRET, KEPT = "modelyard.db", "audit-head", "redaction.key", "kept/index.db"
ARTIFACTS, UNHEALTHY = "artifacts", "unhealthy"
_PLACES = re.compile(rf"(?:{ARTIFACTS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}/.+|{UNHEALTHY}/[0-9a-f]{{16}})", re.DOTALL)
_ALONE = frozenset({DATABASE, AUDIT_HEAD, SECRET, KEPT})

LEFT_OUT = {
    "spool": "raw bodies, not redacted yet; their records are in the database, but for those counted as waiting",
    "tls": "a start makes a new self-signed certificate",
    "board, run, tallies, server.json, server.lock, drain.lock": "they describe the processes that run now",
    "archive": "it lies where `retention.archive_url` says: copy its files as they are",
    "configuration": "it lies outside the data folder: the file, the environment, your own certificates",
}
"""What of a data folder no backup holds, and why."""


class FileSeal(msgspec.Struct, frozen=True):
    """One file: its path with slashes, its size, its SHA-256 in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True):
    """What a backup holds. `created_at` is ISO 8601, UTC; `waiting` are records that the database did not have in time
    and that the backup lacks."""

    product: str
    format: int
    program: str
    created_at: str
    schema: str
    files: tuple[FileSeal, ...]
    counts: dict[str, int]
    audit_head: Head | None
    waiting: int
    left_out: dict[str, str]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)


class _Form(msgspec.Struct, frozen=True):
    """What the manifests of all formats share."""

    product: str
    format: int


def seal(folder: Path, names: Iterable[str]) -> tuple[FileSeal, ...]:
    """The seals of these files."""
    return tuple(_seal(folder, name) for name in names)


def _seal(folder: Path, name: str) -> FileSeal:
    with (folder / name).open("rb") as file:
        return FileSeal(name, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def names_in(folder: Path) -> Iterator[str]:
    """Everything in a folder that is no folder itself, links to folders included; sorted."""
    for inner, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(inner) / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (Path(inner) / name).relative_to(folder).as_posix()


def write_manifest(folder: Path, manifest: BackupManifest) -> None:
    """Writes it with its sum, private and durable."""
    content = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    write_private(folder / SUM_NAME, f"{hashlib.sha256(content).hexdigest()}  {NAME}\n".encode())
    write_private(folder / NAME, content)


def manifest_sum(said: bytes) -> str:
    """The hash that the manifest's sum file says, in hexadecimal: what a backup is known by."""
    return said.split()[0].decode("ascii")


def write_private(path: Path, content: bytes) -> None:
    """A new file (0600) with this content, durable."""
    make_private(path.parent)
    with open(path, "xb", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_private(folder: Path) -> None:
    """A folder with all those above it, each new one the owner's alone; `mkdir` sees to the last one only."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700)


def private(path: str, flags: int) -> int:
    """An opener of files that are the owner's alone."""
    return os.open(path, flags, 0o600)


def read_manifest(content: BinaryIO, said: BinaryIO) -> BackupManifest:
    """The manifest from its two files; CommandError("backup_damaged" | "backup_foreign" | "backup_too_new")."""
    text = content.read(MAX_MANIFEST_BYTES)
    if said.read(1024) != f"{hashlib.sha256(text).hexdigest()}  {NAME}\n".encode():
        raise damaged(f"`{NAME}` is not what `{SUM_NAME}` says")
    try:
        form = msgspec.json.decode(text, type=_Form)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise foreign() from None
    if form.product != PRODUCT:
        raise foreign()
    if form.format > FORMAT:
        raise too_new("backup format", str(form.format), str(FORMAT))
    try:
        manifest = msgspec.json.decode(text, type=BackupManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise foreign() from None
    _check_places(manifest)
    return manifest


def _check_places(manifest: BackupManifest) -> None:
    """Nothing but what a backup holds comes into a data folder, and nothing outside it."""
    paths = [file.path for file in manifest.files]
    for path in paths:
        known = path in _ALONE or _PLACES.fullmatch(path)
        if not known or ".." in PurePosixPath(path).parts or str(PurePosixPath(path)) != path or "\0" in path:
            raise CommandError(
                "backup_foreign", "The backup names a file that no backup holds.", field="BACKUP", got=path
            )
    if len(set(paths)) != len(paths) or DATABASE not in paths:
        raise damaged("its list of files is not whole")


def damaged(what: str) -> CommandError:
    """The refusal of a backup that is not what it was."""
    return CommandError("backup_damaged", f"The backup is damaged: {what}.", field="BACKUP")


def foreign() -> CommandError:
    """The refusal of what is no backup of ours."""
    return CommandError(
        "backup_foreign",
        f"This is no backup of Modelyard, or one that was cut short: it holds no readable `{NAME}`.",
        field="BACKUP",
    )


def too_new(what: str, got: str, expected: str) -> CommandError:
    """The refusal of a backup by a newer program."""
    return CommandError(
        "backup_too_new",
        f"The backup has {what} {got}, this program knows up to {expected}: a newer one wrote it.",
        field="BACKUP",
        expected=expected,
        got=got,
    )
