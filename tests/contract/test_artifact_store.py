"""The promises of models.ports.ArtifactStore."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelyardError, NotFoundError, PublishError, UnavailableError
from modelyard.models.manifest import FileEntry
from modelyard.models.ports import ArtifactStore
from modelyard.storage.file.artifacts import FolderArtifactStore
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.s3.store import S3ArtifactStore
from modelyard.testing import MemoryArtifactStore, manifest, version_folder
from objectstore.emulator import Emulator

FILES = {"model.onnx": b"weights" * 1000, "vocabulary/words.txt": "größe\n".encode(), "empty": b""}


@pytest.fixture(params=["memory", "folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store."""
    if request.param == "memory":
        return MemoryArtifactStore()
    if request.param == "folder":
        return FolderArtifactStore(tmp_path / "artifacts")
    emulator: Emulator = request.getfixturevalue("emulator")
    settings = emulator.settings(emulator.bucket())
    cache = ArtifactCache(tmp_path / "artifacts", settings.cache_bytes, settings.timeout_s)
    return S3ArtifactStore(settings, cache, SystemClock())


def _source(folder: Path, files: dict[str, bytes] | None = None) -> tuple[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return version_folder(folder, FILES if files is None else files).digest(), folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_come_back_as_they_were_put(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """Every listed file byte for byte, with its manifest beside it; what is not listed is not taken."""
    digest, folder = _source(tmp_path / "source")
    (folder / "notes.txt").write_text("not in the manifest")
    assert not artifacts.has(digest)
    artifacts.put(digest, folder)
    assert artifacts.has(digest)
    expected = {**FILES, "manifest.json": (folder / "manifest.json").read_bytes()}
    assert _contents(artifacts.open(digest)) == expected


def test_the_store_keeps_a_copy(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """What happens to the source afterwards does not matter."""
    digest, folder = _source(tmp_path / "source")
    artifacts.put(digest, folder)
    (folder / "model.onnx").write_bytes(b"changed")
    assert (artifacts.open(digest) / "model.onnx").read_bytes() == FILES["model.onnx"]


def test_files_are_read_only(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """Files have no write bit, and nobody but the owner gets in."""
    digest, folder = _source(tmp_path / "source")
    artifacts.put(digest, folder)
    place = artifacts.open(digest)
    assert {path.stat().st_mode & 0o777 for path in place.rglob("*") if path.is_file()} == {0o400}
    assert {path.stat().st_mode & 0o077 for path in [place, *place.rglob("*")]} == {0}


def test_release_is_never_refused(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """Giving a folder back, also one that was never opened, leaves the version in the store."""
    digest, folder = _source(tmp_path / "source")
    artifacts.put(digest, folder)
    artifacts.release(digest)
    artifacts.open(digest)
    artifacts.release(digest)
    artifacts.release("0" * 64)
    assert artifacts.has(digest)
    assert _contents(artifacts.open(digest)).keys() == {*FILES, "manifest.json"}


def test_putting_twice_is_no_change(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """The same digest again does nothing, even from a folder that is gone."""
    digest, folder = _source(tmp_path / "source")
    artifacts.put(digest, folder)
    artifacts.put(digest, tmp_path / "gone")
    assert _contents(artifacts.open(digest)).keys() == {*FILES, "manifest.json"}


@pytest.mark.parametrize("digest", ["0" * 64, "", "..", "../../etc", "x" * 64, "A" * 64])
def test_an_unknown_digest_is_not_found(artifacts: ArtifactStore, digest: str) -> None:
    """Whatever the text looks like."""
    assert not artifacts.has(digest)
    with pytest.raises(NotFoundError) as caught:
        artifacts.open(digest)
    assert caught.value.code == "version_not_found"


def _other_bytes(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(FILES["model.onnx"][:-1] + b"?")


def _missing(folder: Path) -> None:
    (folder / "vocabulary/words.txt").unlink()


def _link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "elsewhere")
    (folder / "model.onnx").symlink_to(folder / "elsewhere")


def _pipe(folder: Path) -> None:
    (folder / "empty").unlink()
    os.mkfifo(folder / "empty")


def _broken_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"{")


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize("spoil", [_other_bytes, _missing, _link, _pipe, _broken_manifest, _no_manifest])
def test_a_folder_that_is_not_its_manifest_is_refused(
    artifacts: ArtifactStore, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """manifest_invalid, and nothing is left of it (promise P5)."""
    digest, folder = _source(tmp_path / "source")
    spoil(folder)
    with pytest.raises(PublishError) as caught:
        artifacts.put(digest, folder)
    assert caught.value.code == "manifest_invalid"
    assert not artifacts.has(digest)
    assert _leftovers(tmp_path) == []


def test_a_digest_of_another_manifest_is_refused(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """The digest names the manifest that lies in the folder, or nothing is taken."""
    _digest, folder = _source(tmp_path / "source")
    with pytest.raises(PublishError):
        artifacts.put("0" * 64, folder)
    assert not artifacts.has("0" * 64)


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "a/../b", "./a", "a//b", ".", "", "manifest.json"])
def test_a_path_that_leaves_the_folder_is_refused(artifacts: ArtifactStore, tmp_path: Path, path: str) -> None:
    """Paths are relative, plain, and never the manifest's own."""
    data = b"x"
    entry = FileEntry(path, hashlib.sha256(data).hexdigest(), len(data))
    hostile = msgspec.structs.replace(manifest(), files=(entry,))
    (tmp_path / "outside").write_bytes(data)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(msgspec.json.encode(hostile))
    with pytest.raises(PublishError) as caught:
        artifacts.put(hostile.digest(), folder)
    assert caught.value.code == "manifest_invalid"
    assert not artifacts.has(hostile.digest())


def test_eight_threads_putting_one_digest(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """All succeed, the content is there once and whole, no temporary folder stays."""
    digest, folder = _source(tmp_path / "source")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: artifacts.put(digest, folder), range(8)))
    assert _contents(artifacts.open(digest)).keys() == {*FILES, "manifest.json"}
    assert _leftovers(tmp_path) == []


def _leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "artifacts" / ".incoming").glob("*")]


def _die_at(nth: int, root: Path) -> None:
    """This process dies at its n-th touch of the file system below `root` from now on."""
    touched = 0

    def hook(name: str, arguments: Any) -> None:
        nonlocal touched
        if name in ("open", "os.mkdir", "os.rename", "os.scandir", "os.rmdir", "fcntl.flock"):
            touched += 1
            if touched == nth + 1:
                os._exit(9)

    sys.addaudithook(hook)


def test_a_process_killed_anywhere_leaves_absent_or_complete(tmp_path: Path) -> None:
    """Killed at every touch of the file system in turn: the digest is absent, or complete; the next start sweeps."""
    digest, folder = _source(tmp_path / "source")
    root = tmp_path / "artifacts"
    FolderArtifactStore(root)
    for nth in range(200):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store = FolderArtifactStore(root)
                _die_at(nth, root)
                store.put(digest, folder)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        store = FolderArtifactStore(root)
        assert _leftovers(tmp_path) == []
        if store.has(digest):
            assert _contents(store.open(digest)).keys() == {*FILES, "manifest.json"}
            assert (store.open(digest) / "model.onnx").read_bytes() == FILES["model.onnx"]
        if code == 0:
            assert store.has(digest)
            assert nth > 15
            return
        assert code == 9
        if store.has(digest):  # killed behind the rename: go on with the rest of the points
            _remove(store.open(digest))
    raise AssertionError("the put never ended")


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "fchmod"])
def test_a_disk_that_refuses_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Failing at every single call of a kind in turn: store_unavailable, no digest, no leftovers."""
    digest, folder = _source(tmp_path / "source")
    store = FolderArtifactStore(tmp_path / "artifacts")
    real = getattr(os, call)
    for nth in range(100):
        calls = iter(range(1000))

        def refusing(*arguments: Any, calls: Any = calls, nth: int = nth, **named: Any) -> Any:
            if next(calls) == nth:
                raise OSError(28, "No space left on device")
            return real(*arguments, **named)

        monkeypatch.setattr(os, call, refusing)
        refused = _refusal(store, digest, folder)
        monkeypatch.undo()
        if refused is not None:
            assert "No space left on device" in refused.message
            assert _leftovers(tmp_path) == []
            if store.has(digest):  # only the last sync, behind the rename, may fail with the content in place
                assert call == "fsync"
                _remove(store.open(digest))
            continue
        assert nth > 0
        assert store.has(digest)
        return
    raise AssertionError("the put never ended")


def _refusal(store: ArtifactStore, digest: str, folder: Path) -> UnavailableError | None:
    try:
        store.put(digest, folder)
    except UnavailableError as error:
        return error
    return None


def test_everything_is_synced_before_the_rename_and_the_rename_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power loss: files and their folders reach the disk before the digest's name does, the name before `put` ends."""
    digest, folder = _source(tmp_path / "source")
    store = FolderArtifactStore(tmp_path / "artifacts")
    synced: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real_fsync(handle)

    def rename(source: Any, target: Any, **named: Any) -> None:
        inside = {str(path) for path in Path(source).rglob("*")} | {str(source)}
        assert inside <= set(synced)
        synced.clear()
        real_rename(source, target, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    store.put(digest, folder)
    assert synced == [str(tmp_path / "artifacts" / digest[:2])]


def test_a_sweep_leaves_a_living_put_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process that opens the store while a put is under way does not take its folder away."""
    digest, folder = _source(tmp_path / "source")
    root = tmp_path / "artifacts"
    store = FolderArtifactStore(root)
    real = os.fsync

    def open_another(handle: int) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                monkeypatch.setattr(os, "fsync", real)
                FolderArtifactStore(root)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        real(handle)

    monkeypatch.setattr(os, "fsync", open_another)
    store.put(digest, folder)
    assert _contents(store.open(digest)).keys() == {*FILES, "manifest.json"}


def test_a_folder_that_cannot_be_used_is_a_settings_error(tmp_path: Path) -> None:
    """A file where the folder should be: a sentence with a code."""
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(ModelyardError) as caught:
        FolderArtifactStore(tmp_path / "artifacts")
    assert caught.value.code == "data_folder_unusable"
