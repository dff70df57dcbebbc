"""The catalog: loads what is new, keeps failures apart, frees only what it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import NotFoundError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.models.catalog import RETRY_S, Catalog
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.testing import FakeClock, MemoryArtifactStore, StubModel, StubRuntime, version


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


class GatedRuntime(StubRuntime):
    """Loads a version when its gate is open; `order` lists what began to load."""

    def __init__(self) -> None:
        self.gates: dict[str, threading.Event] = {}
        self.order: list[str] = []
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        """The model, once its gate is open."""
        name = manifest.provenance["name"]
        with self._lock:
            self.order.append(name)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.gates.get(name, _OPEN).wait(10)
        with self._lock:
            self.at_once -= 1
        return super().load(folder, manifest, options)


_OPEN = threading.Event()
_OPEN.set()


class Gate:
    """A catalog whose loads end when the test says so."""

    def __init__(self, folder: Path, **models: Any) -> None:
        self.folder = folder
        self.artifacts, self.clock, self.runtime = MemoryArtifactStore(), FakeClock(), GatedRuntime()
        settings = load_settings(data=folder / "data", **{f"models.{name}": value for name, value in models.items()})
        self.catalog = Catalog(self.artifacts, {"stub": self.runtime}, settings, self.clock)

    def put(self, model: str, name: str, size: int = 0, closed: bool = False, at: float = 0.0) -> Version:
        """A version of about this many bytes, its gate open or closed."""
        content = json.dumps({"k": 2.0, "fill": "x" * size}).encode()
        made = version(model, name, content, created_at=at, provenance={"name": f"{model}/{name}"})
        if closed:
            self.runtime.gates[f"{model}/{name}"] = threading.Event()
        return _put(self.artifacts, self.folder, made, content)

    def open(self, name: str) -> None:
        """Lets a load go on."""
        self.runtime.gates[name].set()


def _ends(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_slow_load_holds_up_no_other(tmp_path: Path) -> None:
    """`begin` returns at once; a quick version is loaded while a slow one is on its way, and says so."""
    gate = Gate(tmp_path, parallel_loads=2)
    slow, quick = gate.put("slow", "1", closed=True), gate.put("quick", "1", size=100)
    changes = gate.catalog.changes()
    gate.catalog.begin((slow, quick), {("slow", "1"), ("quick", "1")})
    gate.catalog.wait(changes, 10)
    _ends(lambda: ("quick", "1") in gate.catalog.state().servables)
    assert gate.catalog.state().pending == {("slow", "1")}
    with pytest.raises(UnavailableError):
        gate.catalog.get("slow", "1")
    gate.open("slow/1")
    _ends(lambda: gate.catalog.state().pending == frozenset())
    assert gate.catalog.get("slow", "1").version == "1"


@pytest.mark.parametrize("width", [1, 3])
def test_loads_are_bounded_and_in_order(tmp_path: Path, width: int) -> None:
    """`models.parallel_loads` at once; what has traffic first, then the smaller ones."""
    gate = Gate(tmp_path, parallel_loads=width)
    made = [gate.put("m", str(n), size=1000 * n, closed=width > 1) for n in (5, 3, 4, 1, 2)]
    routed = {("m", "5"), ("m", "4")}
    gate.catalog.begin(made, routed)
    if width > 1:
        _ends(lambda: len(gate.runtime.order) == width)
        for n in range(1, 6):
            gate.open(f"m/{n}")
    gate.catalog.refresh(made, routed)
    assert gate.runtime.most == width
    assert len(gate.runtime.order) == 5
    if width == 1:
        assert gate.runtime.order == ["m/4", "m/5", "m/1", "m/2", "m/3"]


def test_a_library_that_wants_to_leave_ends_its_load_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SystemExit from a load is that version's failure; the threads go on."""
    gate = Gate(tmp_path, parallel_loads=1)
    load = gate.runtime.load

    def leave(folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        if manifest.provenance["name"] == "bad/1":
            raise SystemExit(3)
        return load(folder, manifest, options)

    monkeypatch.setattr(gate.runtime, "load", leave)
    bad, good = gate.put("bad", "1"), gate.put("good", "1", size=10)
    gate.catalog.refresh((bad, good))
    assert set(gate.catalog.servables()) == {("good", "1")}
    assert set(gate.catalog.failures()) == {("bad", "1")}


def test_the_least_recently_used_leaves_for_one_that_is_asked_for(tmp_path: Path) -> None:
    """Where the bound is reached, versions without traffic rest. One that a prediction names comes in, and what was
    used longest ago leaves for it: it is given out no more at once, its files and memory are freed once it is let go,
    and only then the other is loaded. What has traffic stays."""
    used: dict[tuple[str, str], float] = {}
    gate = Gate(tmp_path, parallel_loads=1, max_idle_versions=2)
    gate.catalog._last_used = lambda key: used.get(key, 0.0)
    made = [gate.put("m", str(n), at=float(n)) for n in range(1, 5)]
    gate.catalog.refresh(made, {("m", "1")})
    assert set(gate.catalog.servables()) == {("m", "1"), ("m", "3"), ("m", "4")}
    assert gate.catalog.failures() == {}
    used["m", "3"] = gate.clock.now()
    held = gate.catalog.get("m", "4")
    gate.catalog.ask("m", "2")
    _ends(lambda: gate.catalog.state().leaving == (held,))
    assert ("m", "4") not in gate.catalog.servables()
    assert not held.loaded.closed  # type: ignore[attr-defined]
    changes = gate.catalog.changes()
    gate.catalog.wait(changes, 0.3)
    assert (gate.catalog.changes(), gate.runtime.order.count("m/2")) == (changes, 0)
    gate.catalog.let_go(held)
    gate.catalog.let_go(held)
    _ends(lambda: ("m", "2") in gate.catalog.servables())
    assert held.loaded.closed  # type: ignore[attr-defined]
    assert held.digest not in +gate.artifacts.in_use
    assert set(gate.catalog.servables()) == {("m", "1"), ("m", "3"), ("m", "2")}
    gate.catalog.ask("m", "2")
    gate.catalog.ask("m", "unknown")
    assert gate.catalog.state().pending == frozenset()
    gate.catalog.close()
    assert not +gate.artifacts.in_use


def test_what_does_not_fit_is_marked_and_hurts_no_other(tmp_path: Path) -> None:
    """A routed version that does not fit beside those that do fails with its numbers, and is tried again later; an
    idle one that can never fit fails when it is asked for, and not before."""
    gate = Gate(tmp_path, parallel_loads=1, memory_bytes=8 * 1024**2)
    small, large, idle = (
        gate.put("small", "1"),
        gate.put("large", "1", size=4 * 1024**2),
        gate.put("idle", "1", 4_000_000),
    )
    routed = {("small", "1"), ("large", "1")}
    gate.catalog.refresh((small, large, idle), routed)
    assert set(gate.catalog.servables()) == {("small", "1")}
    reason = gate.catalog.failures()["large", "1"]
    assert "large/1 would take about 11 MiB" in reason
    (failed,) = [one for one in gate.catalog.log.timelines() if one.state == "failed"]
    assert (failed.model, failed.code) == ("large", "memory_insufficient")
    assert ("idle", "1") not in gate.catalog.failures()
    gate.catalog.ask("idle", "1")
    _ends(lambda: ("idle", "1") in gate.catalog.failures())
    gate.clock.advance(RETRY_S)
    gate.catalog.refresh((large,), {("large", "1")})
    assert ("large", "1") in gate.catalog.failures()
