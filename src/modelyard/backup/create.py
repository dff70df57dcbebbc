"""Making a backup, beside a running server or of a folder without one.

The order is what makes the parts fit: the audit log's head before the log, the index of kept answers before the
records that they repeat, the spool's marks before the database, the database before the files that it names. What a
part names is then there in the part that is copied after it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import modelyard
from modelyard.app.folder import DataFolder
from modelyard.audit.vocabulary import AuditAction
from modelyard.backup import waiting
from modelyard.backup.database import Holdings, copy_database, holdings, opened
from modelyard.backup.manifest import (
    ARTIFACTS,
    AUDIT_HEAD,
    DATABASE,
    FORMAT,
    KEPT,
    LEFT_OUT,
    NAME,
    PRODUCT,
    SECRET,
    SUM_NAME,
    UNHEALTHY,
    BackupManifest,
    manifest_sum,
    names_in,
    private,
    seal,
    write_manifest,
    write_private,
)
from modelyard.backup.place import partial, sweep, take_file, take_folder
from modelyard.backup.recorded import record
from modelyard.core.clock import Clock
from modelyard.core.errors import CommandError, ModelyardError, SettingsError
from modelyard.core.settings import Settings
from modelyard.storage.file.artifacts import FolderArtifactStore
from modelyard.storage.file.incoming import NAME as INCOMING
from modelyard.storage.file.secret import installation_secret

ARCHIVE_SUFFIX = ".tar"

Advance = Callable[[int], object]


def create(settings: Settings, out: Path, clock: Clock, wait_s: float, advance: Advance = bool) -> BackupManifest:
    """Makes a backup of the data folder at `out`: a tar file if the name ends in `.tar`, else a folder.

    Every record that was answered before the call is in it, but for those that its manifest counts as waiting: the
    database did not have them after `wait_s` seconds. `out` appears whole or not at all. `advance` is told the bytes.
    CommandError("backup_exists" | "backup_unsupported" | "backup_failed"), SettingsError("data_folder_unusable").
    """
    folder = DataFolder(settings.data)
    sweep(out)
    _check(settings, folder, out)
    try:
        with partial(out) as temporary:
            content = temporary / "content"
            content.mkdir(mode=0o700)
            manifest = _fill(content, folder, settings, clock, wait_s, advance)
            # Before it takes its place: there is no backup that the log does not know.
            sha256 = manifest_sum((content / SUM_NAME).read_bytes())
            busy_s = settings.database.busy_timeout_s
            record(folder.path, AuditAction.BACKUP_CREATE, manifest, sha256, clock, busy_s)
            if out.suffix == ARCHIVE_SUFFIX:
                archive = temporary / "archive"
                _pack(content, archive, manifest)
                take_file(archive, out)
            else:
                take_folder(content, out)
            return manifest
    except FileExistsError:
        raise _exists(out) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CommandError("backup_failed", f"The backup cannot be written: {reason}.", field="--out") from None


def _check(settings: Settings, folder: DataFolder, out: Path) -> None:
    for name, url in (("database.url", settings.database.url), ("artifacts.url", settings.artifacts.url)):
        if url is not None:
            raise CommandError(
                "backup_unsupported",
                f"`{name}` is set: a backup holds a data folder with its own database and artifacts, and would lack "
                "what lies elsewhere. Use the backups of that store.",
                field=name,
            )
    if out.exists() or out.is_symlink():
        raise _exists(out)
    if not folder.database.is_file():
        raise SettingsError(
            "data_folder_unusable", f"The folder `{folder.path}` holds no database.", field="data", got=str(folder.path)
        )
    if out.absolute().is_relative_to(folder.path):
        raise CommandError(
            "usage_invalid", "A backup inside the folder that it is of would go with it.", field="--out", got=str(out)
        )


def _exists(out: Path) -> CommandError:
    return CommandError(
        "backup_exists", f"`{out}` is there already; a backup overwrites nothing.", field="--out", got=str(out)
    )


def _fill(
    content: Path, folder: DataFolder, settings: Settings, clock: Clock, wait_s: float, advance: Advance
) -> BackupManifest:
    busy_s = settings.database.busy_timeout_s
    _copy_small(folder.path, content, AUDIT_HEAD)
    if (folder.path / KEPT).is_file():
        (content / KEPT).parent.mkdir(mode=0o700)
        copy_database(folder.path / KEPT, content / KEPT, busy_s)
    left = _settle(folder, settings, clock, wait_s)
    copy_database(folder.database, content / DATABASE, busy_s, advance)
    held = holdings(content / DATABASE, busy_s)
    _copy_artifacts(folder, content, held, advance)
    installation_secret(folder.path)  # made now if nothing was redacted yet, so that a restore keeps the joins
    _copy_small(folder.path, content, SECRET)
    for name in names_in(folder.unhealthy) if folder.unhealthy.is_dir() else ():
        if not name.startswith("."):
            _copy_small(folder.path, content, f"{UNHEALTHY}/{name}")
    manifest = BackupManifest(
        product=PRODUCT,
        format=FORMAT,
        program=modelyard.__version__,
        created_at=datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        schema=held.schema,
        files=seal(content, names_in(content)),
        counts=held.counts,
        audit_head=held.audit_head,
        waiting=left,
        left_out=LEFT_OUT,
    )
    write_manifest(content, manifest)
    return manifest


def _settle(folder: DataFolder, settings: Settings, clock: Clock, wait_s: float) -> int:
    """Waits for the records of this moment; how many the database still lacks."""
    marks = waiting.mark(folder.spool)
    if not marks:
        return 0
    if not folder.locked():
        waiting.store_rest(settings)
    with opened(folder.database, settings.database.busy_timeout_s) as live:

        def position(name: str) -> int:
            found = live.execute('SELECT "offset" FROM spool_positions WHERE file = ?', (name,)).fetchone()
            return found[0] if found else 0

        left = waiting.settled(folder.spool, marks, position, clock, wait_s)
        return waiting.records(folder.spool, left, position)


def _copy_small(data: Path, content: Path, name: str) -> None:
    with suppress(FileNotFoundError):
        write_private(content / name, (data / name).read_bytes())


def _copy_artifacts(folder: DataFolder, content: Path, held: Holdings, advance: Advance) -> None:
    """The files of every version that the copied database names, each checked against its manifest on the way."""
    store = FolderArtifactStore(content / ARTIFACTS)
    for digest in held.digests:
        source = folder.artifacts / digest[:2] / digest
        try:
            store.put(digest, source)
        except ModelyardError as error:
            raise CommandError(
                "backup_failed",
                f"The files of the version with digest {digest} cannot be copied: {error.message}",
                field="--data",
                got=digest,
            ) from None
        advance(sum(path.stat().st_size for path in source.rglob("*") if path.is_file()))
    (content / ARTIFACTS / INCOMING).rmdir()


def _pack(content: Path, archive: Path, manifest: BackupManifest) -> None:
    """One tar file, private and durable, the manifest at its end."""
    names = [*(file.path for file in manifest.files), SUM_NAME, NAME]
    with open(archive, "xb", opener=private) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                tar.add(content / name, name, recursive=False, filter=_plain)
        file.flush()
        os.fsync(file.fileno())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names and numbers of this machine's users."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
