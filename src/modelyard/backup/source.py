"""A backup as it lies there, a folder or a tar file: its names, and its files for reading."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from modelyard.backup.manifest import NAME, SUM_NAME, BackupManifest, damaged, foreign, names_in, read_manifest
from modelyard.core.errors import CommandError

BLOCK = tarfile.BLOCKSIZE


class Source(Protocol):
    """Where a backup's files come from."""

    def names(self) -> list[str]:
        """Everything in it."""

    def open(self, name: str) -> BinaryIO:
        """A regular file of it; CommandError("backup_damaged")."""


class FolderSource:
    """A backup in a folder. No link is followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Every file and link."""
        return list(names_in(self._folder))

    def open(self, name: str) -> BinaryIO:
        """One file."""
        try:
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise damaged(f"`{name}` cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise damaged(f"`{name}` is no regular file")
        return os.fdopen(handle, "rb")


class ArchiveSource:
    """A backup in a tar file. Bytes between its files, which no hash covers, must be zero."""

    def __init__(self, archive: tarfile.TarFile, file: BinaryIO) -> None:
        self._archive = archive
        self._members = archive.getmembers()
        self._check_rest(file)

    def names(self) -> list[str]:
        """All but the folders."""
        return [member.name for member in self._members if not member.isdir()]

    def open(self, name: str) -> BinaryIO:
        """One file."""
        found = [member for member in self._members if member.name == name]
        if len(found) != 1 or not found[0].isreg() or found[0].issparse():
            raise damaged(f"`{name}` is not there once, as a regular file")
        return self._archive.extractfile(found[0])  # type: ignore[return-value]  # regular: never None

    def _check_rest(self, file: BinaryIO) -> None:
        end = 0
        for member in self._members:
            end = member.offset_data + (member.size if member.isreg() else 0)
            file.seek(end)
            if any(file.read(-end % BLOCK)):
                raise damaged("there is something between its files")
        end += -end % BLOCK
        file.seek(end)
        rest = 0
        while block := file.read(tarfile.RECORDSIZE):
            rest += len(block)
            if any(block):
                raise damaged("the archive goes on where it should end")
        if rest < 2 * BLOCK:
            raise damaged("the archive was cut short")


@contextmanager
def opened_source(backup: Path) -> Iterator[Source]:
    """The backup at a path; CommandError("file_unreadable" | "backup_foreign" | "backup_damaged")."""
    if backup.is_dir():
        yield FolderSource(backup)
        return
    try:
        file = backup.open("rb")
    except OSError as error:
        raise CommandError("file_unreadable", f"`{backup}` cannot be read: {error.strerror}.", field="BACKUP") from None
    with file:
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed below
        except tarfile.TarError:
            raise foreign() from None
        with archive:
            yield _read(archive, file)


def _read(archive: tarfile.TarFile, file: BinaryIO) -> Source:
    try:
        return ArchiveSource(archive, file)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise damaged(f"the archive cannot be read ({error})") from None


def manifest_of(source: Source) -> BackupManifest:
    """Its manifest; CommandError("backup_foreign" | "backup_damaged" | "backup_too_new")."""
    if not {NAME, SUM_NAME} <= set(source.names()):
        raise foreign()
    with source.open(NAME) as content, source.open(SUM_NAME) as said:
        return read_manifest(content, said)
