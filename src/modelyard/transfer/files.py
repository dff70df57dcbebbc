"""What a copy moves beside the database: the files of versions, and what is private to a data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from modelyard.app.folder import DataFolder
from modelyard.backup.database import copy_database
from modelyard.backup.manifest import KEPT, SECRET, names_in, write_private
from modelyard.backup.place import partial
from modelyard.core.errors import CommandError, NotFoundError
from modelyard.models.ports import ArtifactStore
from modelyard.storage.file.incoming import sync_folder
from modelyard.storage.file.secret import installation_secret


def copy_artifacts(
    digests: Iterable[str], source: ArtifactStore, target: ArtifactStore, advance: Callable[[int], object]
) -> int:
    """Puts the files of these versions into the target, each file checked by its hash on the way; how many versions
    were not there. CommandError("copy_failed") for one whose files the source lacks."""
    copied = 0
    for digest in digests:
        if not target.has(digest):
            try:
                target.put(digest, source.open(digest))
            except NotFoundError:
                raise no_files(digest) from None
            finally:
                source.release(digest)
            copied += 1
        advance(1)
    return copied


def check_artifacts(digests: Iterable[str], store: ArtifactStore) -> None:
    """CommandError("copy_failed") unless the store that both sides use has the files of these versions."""
    for digest in digests:
        if not store.has(digest):
            raise no_files(digest)


def no_files(digest: str) -> CommandError:
    """The refusal of a source whose artifacts are elsewhere."""
    return CommandError(
        "copy_failed",
        f"The files of the version with digest {digest} are not where the source keeps its artifacts.",
        field="--from-artifacts",
        expected="the source's `artifacts.url`, or its configuration file as --from",
    )


def check_secret(source: DataFolder, target: DataFolder) -> None:
    """CommandError("copy_target_taken") for a target folder whose redaction hashes under another secret."""
    if (target.path / SECRET).exists() and installation_secret(target.path) != installation_secret(source.path):
        raise CommandError(
            "copy_target_taken",
            f"The target's data folder has a `{SECRET}` of its own: what it redacted could not be joined any more.",
            field="--to",
            got=str(target.path),
        )


def copy_private(source: DataFolder, target: DataFolder, busy_timeout_s: float) -> None:
    """The secret of the redaction, the answers kept under Idempotency-Keys, and the marks of unhealthy versions.
    OSError."""
    secret = installation_secret(source.path)  # made now if nothing was redacted yet, so that both have the same
    if not (target.path / SECRET).exists():
        write_private(target.path / SECRET, secret)
        sync_folder(target.path)
    if (source.path / KEPT).is_file():
        _replace_kept(source.path / KEPT, target.path / KEPT, busy_timeout_s)
    marked, before = _marks(source.unhealthy), _marks(target.unhealthy)
    for name in sorted(marked - before):
        write_private(target.unhealthy / name, (source.unhealthy / name).read_bytes())
    for name in before - marked:
        (target.unhealthy / name).unlink()


def _marks(folder: Path) -> set[str]:
    return {name for name in names_in(folder) if not name.startswith(".")}


def _replace_kept(source: Path, target: Path, busy_timeout_s: float) -> None:
    """The target is not served, so nobody has its index open; what an earlier copy brought is replaced."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with partial(target) as temporary:
        copy_database(source, temporary / "index", busy_timeout_s)
        for left in ("-wal", "-shm"):
            target.with_name(target.name + left).unlink(missing_ok=True)
        (temporary / "index").replace(target)
        sync_folder(target.parent)
