"""What was backed up comes back; what was changed since does not (promises P1, P5)."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.app.folder import DataFolder
from modelyard.audit.ports import AuditFilter
from modelyard.backup.create import create
from modelyard.backup.manifest import names_in, seal
from modelyard.backup.restore import restore, verify
from modelyard.core.errors import CommandError, SettingsError
from modelyard.core.settings import Settings, load_settings
from modelyard.storage.file.kept import KeptAnswers
from modelyard.storage.file.secret import installation_secret
from modelyard.storage.sql.open import open_stores
from modelyard.testing import FakeClock


def left_beside(place: Path) -> list[str]:
    """What a command left half made."""
    return [path.name for path in place.parent.iterdir() if path.name.endswith(".partial")]


def test_all_comes_back(backup: Path, settings: Settings, tmp_path: Path) -> None:
    """Version, key, records, audit log and the redaction's secret are what they were, in files of the owner alone."""
    manifest, findings = verify(backup, settings)
    assert findings == ()
    restored = tmp_path / "restored"
    restore(backup, restored, settings)
    stores = open_stores(load_settings(data=restored), restored)
    try:
        assert [version.version for version in stores.registry.versions("tree")] == ["1"]
        place = stores.artifacts.open(stores.registry.version("tree", "1").digest)
        assert (place / "deep/more.bin").read_bytes() == bytes(5000)
        assert len(stores.keys.snapshot().keys) == 1
        assert stores.audit.verify().sound
        (event, *_) = stores.audit.page(AuditFilter(), 1, None).events
        assert manifest.audit_head is not None
        assert (event.sequence, event.previous) == (manifest.audit_head.sequence + 1, manifest.audit_head.hash)
    finally:
        stores.close()
    assert manifest.counts["records"] == 3
    assert installation_secret(restored) == installation_secret(settings.data)
    loose = [path for path in (restored, *restored.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert loose == []
    assert left_beside(restored) == []


def test_both_logs_know_of_it(backup: Path, settings: Settings, tmp_path: Path) -> None:
    """The folder's log says that it was backed up, the restored one that it was restored, by the same hash; a look
    (`verify`) says nothing."""
    verify(backup, settings)
    restore(backup, tmp_path / "restored", settings)
    said = []
    for data in (settings.data, tmp_path / "restored"):
        stores = open_stores(load_settings(data=data), data)
        (last, *_) = stores.audit.page(AuditFilter(), 1, None).events
        assert stores.audit.verify().sound
        said.append((last.action, last.subject, last.after["counts"]["records"]))
        stores.close()
    assert [action for action, *_ in said] == ["backup:create", "backup:restore"]
    assert said[0][1:] == said[1][1:]
    if backup.is_dir():
        assert said[0][1] == f"backup:{hashlib.sha256((backup / 'backup.json').read_bytes()).hexdigest()}"


def test_a_backup_is_private(backup: Path) -> None:
    """Nobody but its owner may read anything of it."""
    assert [path for path in (backup, *backup.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_nothing_is_overwritten(backup: Path, settings: Settings, tmp_path: Path) -> None:
    """Neither a backup nor a folder with anything in it; both stay as they were."""
    before = backup.read_bytes() if backup.is_file() else sorted(names_in(backup))
    with pytest.raises(CommandError) as refused:
        create(settings, backup, FakeClock(), 0.0)
    assert refused.value.code == "backup_exists"
    assert before == (backup.read_bytes() if backup.is_file() else sorted(names_in(backup)))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    with pytest.raises(CommandError) as refused:
        restore(backup, taken, settings)
    assert refused.value.code == "folder_not_empty"
    assert [path.name for path in taken.iterdir()] == ["mine"]


def test_an_empty_folder_is_taken(backup: Path, settings: Settings, tmp_path: Path) -> None:
    """A folder that somebody made for it is as good as none."""
    (tmp_path / "empty").mkdir()
    restore(backup, tmp_path / "empty", settings)
    assert (tmp_path / "empty" / "modelyard.db").is_file()


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def _artifact(folder: Path) -> Path:
    return next(path for path in folder.rglob("more.bin"))


def _cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def _link(folder: Path) -> None:
    (folder / "redaction.key").unlink()
    (folder / "redaction.key").symlink_to(folder / "audit-head")


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a bit of the database": lambda folder: _flip(folder / "modelyard.db", 5000),
    "a bit of an artifact": lambda folder: _flip(_artifact(folder), 17),
    "a bit of the head": lambda folder: _flip(folder / "audit-head", 20),
    "a bit of the secret": lambda folder: _flip(folder / "redaction.key", 3),
    "a bit of the manifest": lambda folder: _flip(folder / "backup.json", 60),
    "a bit of its sum": lambda folder: _flip(folder / "backup.json.sha256", 3),
    "the end of the database": lambda folder: _cut(folder / "modelyard.db"),
    "an artifact": lambda folder: _artifact(folder).unlink(),
    "the manifest": lambda folder: (folder / "backup.json").unlink(),
    "a file too many": lambda folder: (folder / "more").write_text("more"),
    "a link for a file": _link,
    "a pipe's place": lambda folder: ((folder / "audit-head").unlink(), (folder / "audit-head").mkdir()),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_each_tampering_of_a_folder_is_found(settings: Settings, tmp_path: Path, what: str) -> None:
    """Whatever is changed, cut, missing or too many: `verify` names it, `restore` leaves nothing."""
    out = tmp_path / "out"
    create(settings, out, FakeClock(), 0.0)
    TAMPERINGS[what](out)
    _refused(out, settings, tmp_path)


def _refused(out: Path, settings: Settings, tmp_path: Path, codes: tuple[str, ...] = ()) -> None:
    try:
        assert verify(out, settings)[1] != ()
    except CommandError as error:
        assert error.code in (codes or ("backup_damaged", "backup_foreign"))  # noqa: PT017 - either way is good
    with pytest.raises(CommandError) as refused:
        restore(out, tmp_path / "new", settings)
    assert refused.value.code in (codes or ("backup_damaged", "backup_foreign"))
    assert not (tmp_path / "new").exists()
    assert left_beside(out) == []


def test_each_bit_of_an_archive_counts(settings: Settings, tmp_path: Path) -> None:
    """A flipped bit anywhere in a tar file is found: in its headers, its files, and what lies between them."""
    out = tmp_path / "out.tar"
    create(settings, out, FakeClock(), 0.0)
    whole = out.read_bytes()
    with tarfile.open(out) as tar:
        members = tar.getmembers()
    borders = [member.offset + at for member in members for at in (5, 105, 130, 150, 156)]
    ends = [member.offset_data + member.size for member in members if member.size % 512]
    for at in sorted({*borders, *ends, *range(100, len(whole), len(whole) // 20), len(whole) - 1}):
        _flip(out, at)
        _refused(out, settings, tmp_path)
        out.write_bytes(whole)
    assert verify(out, settings)[1] == ()


def test_a_cut_archive_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Wherever it was cut, by a full disk or a broken copy."""
    out = tmp_path / "out.tar"
    create(settings, out, FakeClock(), 0.0)
    whole = out.read_bytes()
    for size in (0, 1, 511, 512, len(whole) // 2, len(whole) - 10240, len(whole) * 9 // 10):
        out.write_bytes(whole[:size])
        _refused(out, settings, tmp_path)


def _rewritten(folder: Path, **changed: object) -> None:
    """The manifest with other members, sealed again."""
    said = json.loads((folder / "backup.json").read_text()) | changed
    content = json.dumps(said).encode()
    (folder / "backup.json").write_bytes(content)
    (folder / "backup.json.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  backup.json\n")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"format": 2}, "backup_too_new"),
        ({"schema": "9999"}, "backup_too_new"),
        ({"product": "another"}, "backup_foreign"),
        ({"files": []}, "backup_damaged"),
        ({"files": [{"path": "../out", "size_bytes": 1, "sha256": "0"}]}, "backup_foreign"),
        ({"files": [{"path": "/etc/passwd", "size_bytes": 1, "sha256": "0"}]}, "backup_foreign"),
        ({"files": [{"path": "spool/x.spool", "size_bytes": 1, "sha256": "0"}]}, "backup_foreign"),
        ({"files": [{"path": f"artifacts/aa/{'a' * 64}/../../x", "size_bytes": 1, "sha256": "0"}]}, "backup_foreign"),
    ],
)
def test_other_backups_are_refused(settings: Settings, tmp_path: Path, changed: dict[str, object], code: str) -> None:
    """A newer program's, another program's, and one that would write outside a data folder's places."""
    out = tmp_path / "out"
    create(settings, out, FakeClock(), 0.0)
    _rewritten(out, **changed)
    _refused(out, settings, tmp_path, (code,))


@pytest.mark.parametrize("content", [b"", b"no archive", bytes(20_000)])
def test_no_backup_is_refused(settings: Settings, tmp_path: Path, content: bytes) -> None:
    """A file that is none, an empty folder, and nothing at all."""
    (tmp_path / "file").write_bytes(content)
    _refused(tmp_path / "file", settings, tmp_path)
    (tmp_path / "folder").mkdir()
    _refused(tmp_path / "folder", settings, tmp_path)
    _refused(tmp_path / "nothing", settings, tmp_path, ("file_unreadable",))


def _resealed(folder: Path) -> None:
    """The manifest with the hashes of what is there, as somebody who covers a trace would write it."""
    names = [name for name in names_in(folder) if not name.startswith("backup.json")]
    said = [{"path": one.path, "size_bytes": one.size_bytes, "sha256": one.sha256} for one in seal(folder, names)]
    _rewritten(folder, files=said)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DELETE FROM predictions WHERE id = 'p1'", "count_differs"),
        ("UPDATE audit_events SET subject = 'x' WHERE sequence = 1", "event_changed"),
        ("DELETE FROM audit_events WHERE sequence = (SELECT max(sequence) FROM audit_events)", "tail_missing"),
        ("UPDATE alembic_version SET version_num = '0003'", "schema_differs"),
    ],
)
def test_what_hashes_do_not_tell_is_found(settings: Settings, tmp_path: Path, statement: str, code: str) -> None:
    """A record taken out, an event changed or cut off, though all hashes were written anew: by count and by chain."""
    out = tmp_path / "out"
    create(settings, out, FakeClock(), 0.0)
    with closing(sqlite3.connect(out / "modelyard.db")) as database:
        database.execute(statement)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for rest in ("-wal", "-shm"):
        (out / f"modelyard.db{rest}").unlink(missing_ok=True)
    _resealed(out)
    assert code in {one.code for one in verify(out, settings)[1]}
    _refused(out, settings, tmp_path)


def test_an_artifact_of_another_content_is_found(settings: Settings, tmp_path: Path) -> None:
    """P5: a version's file that is not its manifest's is found, though the backup's own hashes agree."""
    out = tmp_path / "out"
    create(settings, out, FakeClock(), 0.0)
    _flip(_artifact(out), 9)
    _resealed(out)
    assert {one.code for one in verify(out, settings)[1]} == {"version_damaged"}


def test_a_damaged_artifact_is_not_backed_up(settings: Settings, tmp_path: Path) -> None:
    """P5: what is not what was published ends the backup with its digest, and leaves nothing."""
    _flip(_artifact(settings.data / "artifacts"), 9)
    with pytest.raises(CommandError) as refused:
        create(settings, tmp_path / "out", FakeClock(), 0.0)
    assert refused.value.code == "backup_failed"
    assert not (tmp_path / "out").exists()
    assert left_beside(tmp_path / "out") == []


def test_what_cannot_be_whole_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A database or artifacts elsewhere, a folder without a database, and a backup inside its own folder."""
    for section, url in (("database", "sqlite:////elsewhere.db"), ("artifacts", "s3://bucket/prefix")):
        elsewhere = getattr(settings, section).model_copy(update={"url": url})
        with pytest.raises(CommandError) as refused:
            create(settings.model_copy(update={section: elsewhere}), tmp_path / "out", FakeClock(), 0.0)
        assert (refused.value.code, refused.value.detail["field"]) == ("backup_unsupported", f"{section}.url")
    with pytest.raises(CommandError, match="inside"):
        create(settings, settings.data / "out", FakeClock(), 0.0)
    with pytest.raises(SettingsError, match="holds no database"):
        create(load_settings(data=tmp_path / "none"), tmp_path / "out", FakeClock(), 0.0)


def test_kept_answers_and_marks_come_along(settings: Settings, tmp_path: Path) -> None:
    """The index of idempotency keys, and the versions that were taken out; locks, boards and certificates do not."""
    KeptAnswers(settings.data / "kept", settings.data / "spool", 1, FakeClock()).close()
    folder = DataFolder(settings.data)
    folder.unhealthy.mkdir()
    (folder.unhealthy / f"{7:016x}").write_text("{}")
    for name in ("server.lock", "drain.lock", "server.json", "tls/key.pem", "board", "spool/.x.spool"):
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("")
    out, new = tmp_path / "out", tmp_path / "new"
    create(settings, out, FakeClock(), 0.0)
    places = {name.split("/")[0] for name in names_in(out)}
    assert places == {
        "artifacts", "audit-head", "backup.json", "backup.json.sha256", "kept", "modelyard.db", "redaction.key",
        "unhealthy",
    }  # fmt: skip
    restore(out, new, settings)
    assert (new / "kept/index.db").is_file()
    assert (new / "unhealthy" / f"{7:016x}").is_file()
    shutil.rmtree(new)


def test_the_next_one_sweeps_what_was_killed(settings: Settings, tmp_path: Path) -> None:
    """What a killed command left is no backup, and gone after the next; a neighbour's is not touched."""
    out = tmp_path / "out"
    dead, other = tmp_path / f".out.{'0' * 16}.partial", tmp_path / f".other.{'0' * 16}.partial"
    for folder in (dead, other):
        (folder / "content").mkdir(parents=True)
    with pytest.raises(CommandError):
        verify(dead / "content", settings)
    create(settings, out, FakeClock(), 0.0)
    assert left_beside(out) == [other.name]


def test_a_backup_says_what_it_lacks(settings: Settings, tmp_path: Path) -> None:
    """What lies outside the data folder is named, the archive's days among it: they are nowhere else."""
    made = create(settings, tmp_path / "made", FakeClock(), 0.0)
    assert {"spool", "configuration", "archive"} <= made.left_out.keys()
