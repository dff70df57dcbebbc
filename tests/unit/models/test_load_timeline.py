"""The timeline of a load: each step with its time, in order, bounded, also of a load that fails (PERF-3)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import PublishError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.http.processes.loads import LoadFiles
from modelyard.models import load as load_module
from modelyard.models.catalog import Catalog
from modelyard.models.load import load_servable
from modelyard.models.loads.hashed import VALID_S, WORTH_BYTES, YOUNG_S, HashedFiles
from modelyard.models.loads.timeline import MOST_TIMELINES, LoadLog, Step, Timeline, rate_mb_s
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.testing import FakeClock, MemoryArtifactStore, StubModel, StubRuntime, version


class TimedRuntime(StubRuntime):
    """A parser that takes two seconds of the test's clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        """The model, two seconds later; a `k` of zero is refused."""
        self.clock.advance(2.0)
        made = super().load(folder, manifest, options)
        if made.k == 0:
            raise PublishError("model_unreadable", "It is no good.", field="model")
        return made


def _catalog(folder: Path, content: bytes) -> tuple[Catalog, Version, list[tuple[Timeline, ...]], FakeClock]:
    clock, artifacts = FakeClock(), MemoryArtifactStore()
    told: list[tuple[Timeline, ...]] = []
    made = version("tree", "1", content)
    place = folder / "one"
    place.mkdir()
    (place / "stub.json").write_bytes(content)
    (place / "manifest.json").write_bytes(msgspec.json.encode(made.manifest))
    artifacts.put(made.digest, place)
    settings = load_settings(data=folder / "data")
    return Catalog(artifacts, {"stub": TimedRuntime(clock)}, settings, clock, told=told.append), made, told, clock


def test_a_load_is_told_step_by_step(tmp_path: Path) -> None:
    """Begin and end are told; the steps are in order, the parser's has its two seconds and the bytes."""
    catalog, made, told, _ = _catalog(tmp_path, b'{"k": 2.0}')
    catalog.refresh((made,))
    assert [one[0].state for one in told][:1] == ["loading"]
    (timeline,) = catalog.log.timelines()
    assert told[-1] == (timeline,)
    assert [step.name for step in timeline.steps] == ["wait", "resolve", "verify", "parse", "warm_up"]
    parse = timeline.steps[3]
    assert (parse.duration_s, parse.size_bytes) == (pytest.approx(2.0), len(b'{"k": 2.0}'))
    assert (timeline.state, timeline.total_s) == ("loaded", pytest.approx(2.0))
    assert timeline.begun_at == 1_700_000_000.0
    catalog.refresh((made,))
    assert catalog.log.timelines() == (timeline,)


def test_a_load_that_fails_says_where_and_why(tmp_path: Path) -> None:
    """The steps up to the one that failed, its code and its reason."""
    catalog, made, _, _ = _catalog(tmp_path, b'{"k": 0.0}')
    catalog.refresh((made,))
    (timeline,) = catalog.log.timelines()
    assert (timeline.state, timeline.code, timeline.reason) == ("failed", "model_unreadable", "It is no good.")
    assert timeline.steps[-1].name == "parse"


def test_the_first_answer_is_noted_once(tmp_path: Path) -> None:
    """An answer of an earlier load does not count; the first one of this load does, and no later one."""
    catalog, made, _, clock = _catalog(tmp_path, b'{"k": 2.0}')
    catalog.refresh((made,))
    loaded_at = clock.now()
    catalog.log.note_answers(lambda key: 0.0)
    catalog.log.note_answers(lambda key: loaded_at - 60)
    assert catalog.log.timelines()[0].steps[-1].name == "warm_up"
    catalog.log.note_answers(lambda key: loaded_at + 1.5)
    catalog.log.note_answers(lambda key: loaded_at + 9.0)
    (timeline,) = catalog.log.timelines()
    assert timeline.steps[-1] == Step("first_answer", timeline.total_s or 0, pytest.approx(1.5))  # type: ignore[arg-type]
    assert [step.name for step in timeline.steps].count("first_answer") == 1


def test_timelines_are_bounded() -> None:
    """The oldest versions are forgotten; a step's rate is that of its bytes."""
    log = LoadLog(FakeClock())
    for number in range(MOST_TIMELINES + 5):
        log.watch(("tree", str(number))).started()
    kept = [one.version for one in log.timelines()]
    assert (len(kept), kept[0]) == (MOST_TIMELINES, "5")
    assert rate_mb_s(Step("verify", 0, 0.5, 1_000_000)) == 2.0
    assert rate_mb_s(Step("wait", 0, 0.5)) is None


def test_workers_files_are_read_while_they_live(tmp_path: Path) -> None:
    """Each worker's newest loads by version; a worker that is gone, and a torn file, say nothing; a clear forgets."""
    files = LoadFiles(tmp_path / "loads")
    files.clear()
    timeline = Timeline("tree", "1", 7.0, "loaded", (Step("parse", 0.0, 1.0),), 1.0)
    files.writer(0)((timeline,))
    files.writer(3)((timeline, Timeline("tree", "2", 8.0)))
    assert files.of("tree", "1") == [(0, timeline), (3, timeline)]
    assert [slot for slot, _ in files.of("tree", "2")] == [3]
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    text = (tmp_path / "loads" / "worker-0").read_bytes().replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % gone)
    (tmp_path / "loads" / "worker-0").write_bytes(text)
    (tmp_path / "loads" / "worker-4").write_bytes(b'{"slot":')
    assert [slot for slot, _ in files.of("tree", "1")] == [3]
    files.clear()
    assert files.read() == []


def test_a_file_is_hashed_once_in_a_load(tmp_path: Path) -> None:
    """P5: within a minute an unchanged large file is not read again; one that was changed, or may have been without
    its times saying so, is; small ones always are."""
    path, now, seconds = tmp_path / "model", [1e12], [0.0]
    path.write_bytes(b"a" * WORTH_BYTES)
    hashed = HashedFiles(lambda: now[0], lambda: seconds[0])
    first = hashed.sha256(path)
    assert first == hashlib.sha256(b"a" * WORTH_BYTES).hexdigest()
    status = path.stat()
    _swap(path, b"b" * WORTH_BYTES)
    assert path.stat().st_ino == status.st_ino
    assert hashed.sha256(path) == hashlib.sha256(b"b" * WORTH_BYTES).hexdigest()
    hashed.remember(path, "told")
    assert hashed.sha256(path) == "told"
    seconds[0] += VALID_S
    assert hashed.sha256(path) != "told"
    now[0] = path.stat().st_ctime + YOUNG_S / 2
    young = HashedFiles(lambda: now[0], lambda: seconds[0])
    young.sha256(path)
    assert not young._known
    path.write_bytes(b"small")
    hashed.remember(path, "told")
    assert hashed.sha256(path) == hashlib.sha256(b"small").hexdigest()


def _swap(path: Path, content: bytes) -> None:
    """Other bytes in the same file, and times that differ for certain."""
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(1, 1))


class CarelessRuntime(StubRuntime):
    """A parser that takes whatever the files hold; `models` lists what it made."""

    def __init__(self) -> None:
        self.models: list[StubModel] = []

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        """A model."""
        self.models.append(StubModel(2.0, manifest.signature))
        return self.models[-1]


@pytest.mark.parametrize("touched", [False, True])
def test_a_large_version_is_hashed_beside_its_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touched: bool
) -> None:
    """P5: files that nobody touched since they were put here are parsed while they are hashed; files that were, after
    the hash alone. What is not of the published hash is not given out either way, and is closed."""
    monkeypatch.setattr(load_module, "BESIDE_BYTES", 1)
    runtime, made = CarelessRuntime(), version("tree", "1", b'{"k": 2.0}')
    (tmp_path / "stub.json").write_bytes(b'{"k": 9.0}')
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(msgspec.json.encode(made.manifest))
    while manifest.stat().st_ctime_ns <= (tmp_path / "stub.json").stat().st_ctime_ns:
        manifest.chmod(0o400)  # until the file system's clock has ticked
    while touched and manifest.stat().st_ctime_ns >= (tmp_path / "stub.json").stat().st_ctime_ns:
        (tmp_path / "stub.json").chmod(0o400)
    with pytest.raises(UnavailableError) as refused:
        load_servable(made, tmp_path, runtime, load_settings(data=tmp_path / "data"), FakeClock())
    assert (refused.value.code, refused.value.detail["field"]) == ("model_not_ready", "stub.json")
    assert len(runtime.models) == (0 if touched else 1)
    assert all(model.closed for model in runtime.models)
