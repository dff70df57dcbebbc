"""Taking a backup out again: for a look (`verify`) or for good (`restore`). Both do the same until the last step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.audit.vocabulary import AuditAction
from modelyard.backup.check import Finding, check_schema, check_whole, fill
from modelyard.backup.manifest import SUM_NAME, BackupManifest, manifest_sum
from modelyard.backup.place import partial, sweep, take_folder
from modelyard.backup.recorded import record
from modelyard.backup.source import Source, manifest_of, opened_source
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.errors import CommandError
from modelyard.core.settings import Settings

Begin = Callable[[BackupManifest], Callable[[int], object]]
"""Told the manifest once it is read; gives what is told the bytes."""


def silent(_: BackupManifest) -> Callable[[int], object]:
    """Nobody watches."""
    return bool


def verify(backup: Path, settings: Settings, begin: Begin = silent) -> tuple[BackupManifest, tuple[Finding, ...]]:
    """Restores into a scratch folder, which is gone in the end, and says all that is wrong.

    The scratch folder is in TMPDIR if that is set, else beside the backup if that can be written.
    CommandError("file_unreadable" | "backup_foreign" | "backup_damaged" | "backup_too_new" | "backup_failed") where
    there is nothing to look into.
    """
    with _read(backup) as (source, manifest), _told(), partial(_scratch(backup)) as scratch:
        return manifest, _taken_out(source, manifest, scratch, settings, begin)


def restore(
    backup: Path, data: Path, settings: Settings, begin: Begin = silent, clock: Clock | None = None
) -> BackupManifest:
    """Restores into `data`, which must be absent or empty, and appears whole or not at all. Its audit log says so.

    CommandError("folder_not_empty"), or the refusals of `verify`; "backup_damaged" for whatever it would find.
    """
    sweep(data.absolute())
    _check_empty(data)
    with _read(backup) as (source, manifest), _told(), partial(data.absolute()) as temporary:
        fresh = temporary / "data"
        fresh.mkdir(mode=0o700)
        if findings := _taken_out(source, manifest, fresh, settings, begin):
            first = findings[0]
            more = f" There are {len(findings)} findings." if len(findings) > 1 else ""
            raise CommandError(
                "backup_damaged",
                f"The backup is damaged, nothing was restored: `{first.subject}`: {first.message}{more}",
                field="BACKUP",
                got=first.code,
            )
        with source.open(SUM_NAME) as said:
            sha256 = manifest_sum(said.read(1024))
        busy_s = settings.database.busy_timeout_s
        record(fresh, AuditAction.BACKUP_RESTORE, manifest, sha256, clock or SystemClock(), busy_s)
        try:
            take_folder(fresh, data.absolute())
        except FileExistsError:
            raise _not_empty(data) from None
    return manifest


def _taken_out(
    source: Source, manifest: BackupManifest, target: Path, settings: Settings, begin: Begin
) -> tuple[Finding, ...]:
    findings = tuple(fill(source, manifest, target, begin(manifest)))
    return findings or tuple(check_whole(target, manifest, settings))


@contextmanager
def _read(backup: Path) -> Iterator[tuple[Source, BackupManifest]]:
    with opened_source(backup) as source:
        manifest = manifest_of(source)
        check_schema(manifest)
        yield source, manifest


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CommandError("backup_failed", f"The backup cannot be taken out: {reason}.", field="--data") from None


def _scratch(backup: Path) -> Path:
    place = backup.absolute()
    if "TMPDIR" in os.environ or not os.access(place.parent, os.W_OK):
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{place.name}"
    return place.with_name(f"{place.name}.verify")


def _check_empty(data: Path) -> None:
    if data.is_symlink() or (data.exists() and (not data.is_dir() or any(data.iterdir()))):
        raise _not_empty(data)


def _not_empty(data: Path) -> CommandError:
    return CommandError(
        "folder_not_empty",
        f"`{data}` is not an empty folder; a restore overwrites nothing.",
        field="--data",
        got=str(data),
        expected="a folder that is empty or not there",
    )
