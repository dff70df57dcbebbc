"""The catalog: loads what is new, keeps failures apart, frees only what it is told to."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from modelyard.core.errors import NotFoundError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.models.catalog import RETRY_S, Catalog
from modelyard.models.ports import Version
from modelyard.testing import FakeClock, MemoryArtifactStore, StubRuntime, version


def _put(artifacts: MemoryArtifactStore, folder: Path, made: Version, content: bytes) -> Version:
    place = folder / made.digest
    place.mkdir()
    (place / "stub.json").write_bytes(content)
    (place / "manifest.json").write_bytes(msgspec.json.encode(made.manifest))
    artifacts.put(made.digest, place)
    return made


class Shelf:
    """A catalog over fakes and two versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts, self.clock, self.runtime = MemoryArtifactStore(), FakeClock(), StubRuntime()
        self.catalog = Catalog(self.artifacts, {"stub": self.runtime}, load_settings(data=folder / "data"), self.clock)
        self.one = _put(self.artifacts, folder, version("tree", "1", b'{"k": 2.0}'), b'{"k": 2.0}')
        self.two = _put(self.artifacts, folder, version("tree", "2", b'{"k": 3.0}'), b'{"k": 3.0}')


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A fresh shelf."""
    return Shelf(tmp_path)


def test_new_versions_are_loaded_once(shelf: Shelf) -> None:
    """refresh loads what is new and keeps what is there: the same object serves on."""
    shelf.catalog.refresh((shelf.one,))
    first = shelf.catalog.get("tree", "1")
    shelf.catalog.refresh((shelf.one, shelf.two))
    assert shelf.catalog.get("tree", "1") is first
    assert set(shelf.catalog.servables()) == {("tree", "1"), ("tree", "2")}


def test_a_version_that_fails_hurts_no_other(shelf: Shelf) -> None:
    """A missing artifact and an unknown format: their reasons are kept, the others serve; tried again later."""
    lost = version("lost", "1", b"gone")
    odd = msgspec.structs.replace(shelf.two, manifest=msgspec.structs.replace(shelf.two.manifest, format="odd"))
    shelf.catalog.refresh((lost, odd, shelf.one))
    assert set(shelf.catalog.servables()) == {("tree", "1")}
    assert set(shelf.catalog.failures()) == {("lost", "1"), ("tree", "2")}
    with pytest.raises(UnavailableError) as refused:
        shelf.catalog.get("tree", "2")
    assert refused.value.code == "model_not_ready"
    shelf.catalog.refresh((shelf.two,))
    assert ("tree", "2") not in shelf.catalog.servables()
    shelf.clock.advance(RETRY_S)
    shelf.catalog.refresh((shelf.two,))
    assert ("tree", "2") in shelf.catalog.servables()
    assert set(shelf.catalog.failures()) == {("lost", "1")}


def test_nothing_is_unloaded_unless_told(shelf: Shelf) -> None:
    """A version that is no longer listed stays loaded (a table may route to it) until unload closes it."""
    shelf.catalog.refresh((shelf.one, shelf.two))
    held = shelf.catalog.get("tree", "1")
    shelf.catalog.refresh((shelf.two,))
    assert shelf.catalog.get("tree", "1") is held
    shelf.catalog.unload("tree", "1")
    assert held.loaded.closed  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError):
        shelf.catalog.get("tree", "1")


def test_two_refreshes_at_once_load_once(shelf: Shelf) -> None:
    """Concurrent refreshes of the same versions make one servable each, never two."""
    results: list[object] = []

    def refresh() -> None:
        shelf.catalog.refresh((shelf.one, shelf.two))
        results.append(shelf.catalog.get("tree", "1"))

    threads = [threading.Thread(target=refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len({id(result) for result in results}) == 1
    assert len(results) == 4


def test_files_are_held_while_a_version_is_loaded(shelf: Shelf) -> None:
    """One use from the load to the unload, however often it is refreshed; none after a load that failed."""
    broken = _put(shelf.artifacts, shelf.folder, version("broken", "1", b"no stub"), b"no stub")
    for _ in range(2):
        shelf.catalog.refresh((shelf.one, shelf.two, broken))
    assert set(shelf.catalog.failures()) == {("broken", "1")}
    assert +shelf.artifacts.in_use == {shelf.one.digest: 1, shelf.two.digest: 1}
    shelf.catalog.unload("tree", "1")
    assert +shelf.artifacts.in_use == {shelf.two.digest: 1}
    shelf.catalog.close()
    assert not +shelf.artifacts.in_use
