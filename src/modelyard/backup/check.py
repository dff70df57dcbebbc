"""Whether what came out of a backup is what went in: each file, then the whole as the program opens it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from modelyard.backup.database import Holdings, holdings, integrity
from modelyard.backup.manifest import (
    ARTIFACTS,
    COPY_BYTES,
    DATABASE,
    KEPT,
    NAME,
    SECRET,
    SUM_NAME,
    BackupManifest,
    FileSeal,
    make_private,
    private,
    too_new,
)
from modelyard.backup.source import Source
from modelyard.core.errors import CommandError, ModelyardError
from modelyard.core.settings import Settings
from modelyard.storage.file.checked import FILE_MODE, MANIFEST, checked_manifest
from modelyard.storage.file.secret import SECRET_BYTES
from modelyard.storage.sql import schema
from modelyard.storage.sql.open import open_stores

Advance = Callable[[int], object]


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong: what it is about, of which kind (stable), and in a sentence."""

    code: str
    subject: str
    message: str


def check_schema(manifest: BackupManifest) -> None:
    """CommandError("backup_too_new") for a database that this program cannot read."""
    if manifest.schema > schema.HEAD:
        raise too_new("schema", manifest.schema, schema.HEAD)


def fill(source: Source, manifest: BackupManifest, target: Path, advance: Advance = bool) -> Iterator[Finding]:
    """Copies a backup's files into an empty folder, durably, and says which are not what the manifest lists."""
    for name in sorted(set(source.names()) - {NAME, SUM_NAME} - {file.path for file in manifest.files}):
        yield Finding("file_unknown", name, "It is not in the manifest.")
    present = set(source.names())
    for file in manifest.files:
        if file.path not in present:
            yield Finding("file_missing", file.path, "It is in the manifest and not in the backup.")
            continue
        try:
            found = _copy(source, file, target / file.path)
        except CommandError as error:
            yield Finding("file_unreadable", file.path, error.message)
            continue
        if found != file:
            yield Finding(
                "file_changed",
                file.path,
                f"{file.size_bytes} bytes with SHA-256 {file.sha256} were backed up, "
                f"{found.size_bytes} with {found.sha256} are there.",
            )
        advance(file.size_bytes)


def _copy(source: Source, file: FileSeal, target: Path) -> FileSeal:
    make_private(target.parent)
    seen, size_bytes = hashlib.sha256(), 0
    with source.open(file.path) as reader, open(target, "xb", opener=private) as writer:
        while block := reader.read(COPY_BYTES):
            seen.update(block)
            size_bytes += len(block)
            if size_bytes > file.size_bytes:
                break  # it is wrong already, and may have no end
            writer.write(block)
        writer.flush()
        if file.path.startswith(f"{ARTIFACTS}/"):
            os.fchmod(writer.fileno(), FILE_MODE)
        os.fsync(writer.fileno())
    return FileSeal(file.path, size_bytes, seen.hexdigest())


def check_whole(folder: Path, manifest: BackupManifest, settings: Settings) -> Iterator[Finding]:
    """Opens a filled folder as a server would (an older schema becomes today's), and holds it to the manifest."""
    busy_s = settings.database.busy_timeout_s
    for name in (DATABASE, KEPT):
        if (folder / name).exists() and (said := integrity(folder / name, busy_s)):
            yield Finding("database_damaged", name, f"SQLite: {said}.")
            return
    held = holdings(folder / DATABASE, busy_s)
    yield from _counted(held, manifest)
    files = {file.path: file for file in manifest.files}
    for digest in held.digests:
        yield from _version(folder, digest, files)
    if SECRET in files and files[SECRET].size_bytes != SECRET_BYTES:
        yield Finding("secret_damaged", SECRET, f"It does not hold {SECRET_BYTES} bytes.")
    yield from _opened(folder, held, settings)


def _counted(held: Holdings, manifest: BackupManifest) -> Iterator[Finding]:
    if held.schema != manifest.schema:
        yield Finding("schema_differs", DATABASE, f"The manifest says {manifest.schema}, the database {held.schema}.")
    for kind in sorted(held.counts.keys() | manifest.counts.keys()):
        said, found = manifest.counts.get(kind), held.counts.get(kind)
        if said != found:
            yield Finding("count_differs", kind, f"The manifest says {said}, the database holds {found}.")
    if held.audit_head != manifest.audit_head:
        yield Finding("head_differs", "audit", "The last event is not the one that the manifest names.")


def _version(folder: Path, digest: str, files: dict[str, FileSeal]) -> Iterator[Finding]:
    place = f"{ARTIFACTS}/{digest[:2]}/{digest}"
    try:
        manifest = checked_manifest(digest, folder / place)
    except ModelyardError as error:
        yield Finding("version_damaged", f"{place}/{MANIFEST}", error.message)
        return
    for entry in manifest.files:
        path = f"{place}/{entry.path}"
        if files.get(path) != FileSeal(path, entry.size_bytes, entry.sha256):
            yield Finding("version_damaged", path, "It is not what the version's manifest says.")


def _opened(folder: Path, held: Holdings, settings: Settings) -> Iterator[Finding]:
    own = settings.model_copy(
        update={
            "data": folder,
            "database": settings.database.model_copy(update={"url": None}),
            "artifacts": settings.artifacts.model_copy(update={"url": None}),
        }
    )
    try:
        stores = open_stores(own, folder)
    except ModelyardError as error:
        yield Finding("cannot_be_opened", DATABASE, error.message)
        return
    try:
        kept = () if held.audit_head is None else (held.audit_head,)
        for problem in stores.audit.verify(kept).problems:
            yield Finding(problem.code, f"audit event {problem.sequence}", problem.message)
        for one in stores.registry.versions():
            stores.artifacts.open(one.digest)
    except ModelyardError as error:
        yield Finding("cannot_be_opened", DATABASE, error.message)
    finally:
        stores.close()
