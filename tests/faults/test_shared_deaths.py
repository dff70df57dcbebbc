"""K2, K5, K6 for versions that all workers share: each end of the process has its code, is counted once, and hurts
nobody for long. A worker is a SharedModel here; another process where it is to die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelError, UnavailableError
from modelyard.core.types import Array
from modelyard.http.processes.board import Board
from modelyard.http.processes.health import RunNotes, Suspects, UnhealthyVersions, version_token
from modelyard.models.manifest import Manifest
from modelyard.runtimes.remote import model
from modelyard.runtimes.shared import place
from modelyard.runtimes.shared.model import SharedModel
from modelyard.runtimes.shared.place import DeathList, Place
from sharedmodels import ask, back, beside, bounded, doubling, lives, shared, until

NEVER = {"models.unhealthy_deaths": 1000}
Version = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The doubling model."""
    return doubling(tmp_path_factory.mktemp("shared") / "model")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's workers meet."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def pair(version: Version, run: Path) -> Iterator[tuple[SharedModel, SharedModel]]:
    """Two workers of one process that may die as often as it likes."""
    two = shared(version, run, **NEVER), shared(version, run, **NEVER)
    yield two
    for loaded in two:
        loaded.close()


@pytest.fixture
def counted(pair: tuple[SharedModel, SharedModel]) -> list[tuple[str, bool]]:
    """The deaths that either worker reports, while both answer at the start."""
    back(*pair)
    pair[0]._deaths._write(place.Kept())  # the pauses have a test of their own
    found: list[tuple[str, bool]] = []
    for loaded in pair:
        loaded.report_deaths(lambda code, guilty: found.append((code, guilty)))
    return found


def _in_flight(*models: SharedModel) -> None:
    until(lambda: all(loaded._lock.locked() for loaded in models), "the runs to be under way")


def test_a_kill_under_runs_is_one_death(pair: tuple[SharedModel, SharedModel], counted: list[tuple[str, bool]]) -> None:
    """K2: SIGKILL while both workers wait for a run: both runs fail with the code, the death is counted once, and both
    workers find the same new process."""
    pid = int(pair[0].pid or 0)
    os.kill(pid, signal.SIGSTOP)
    codes: list[str] = []
    runs = [beside(lambda loaded=loaded: ask(loaded, 2), codes) for loaded in pair]
    _in_flight(*pair)
    os.kill(pid, signal.SIGKILL)
    for one in runs:
        one.join(20)
    assert codes == ["model_crashed"] * 2
    assert counted == [("model_crashed", False)]
    back(*pair)
    assert pair[0].pid != pid
    assert not lives(pid)


def test_a_kill_of_an_idle_process_costs_no_run(
    pair: tuple[SharedModel, SharedModel], counted: list[tuple[str, bool]]
) -> None:
    """K2: SIGKILL between the runs is seen without one; it is back by itself, and counted once."""
    pid = int(pair[0].pid or 0)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pair[0].pid == pair[1].pid != pid and pair[0].pid, "a new process")
    assert [ask(loaded, 3) for loaded in pair] == ["", ""]
    assert counted == [("model_crashed", False)]


def test_a_process_that_hangs_is_killed_once(
    pair: tuple[SharedModel, SharedModel], counted: list[tuple[str, bool]]
) -> None:
    """K5: stopped, it answers nobody: the worker that waits ends it within models.max_run_s; for the other one that is
    a death as any, which nobody counts twice."""
    pid = int(pair[0].pid or 0)
    os.kill(pid, signal.SIGSTOP)
    begun_s = time.monotonic()
    assert ask(pair[0], 4) == "model_timeout"
    assert time.monotonic() - begun_s < 2 + 5
    assert not lives(pid)
    back(*pair)
    assert counted == [("model_timeout", False)]


def test_memory_beyond_the_bound_fails_its_run_alone(version: Version, tmp_path: Path) -> None:
    """K5: a run that wants more than models.jail_memory_bytes beside the model fails; the process, and the other
    worker's runs, go on."""
    two = [shared(version, tmp_path / "run", **{"models.jail_memory_bytes": 256 * 1024**2}) for _ in range(2)]
    pid = two[0].pid
    assert ask(two[0], 5, elements=2**20) == ""
    assert ask(two[0], 5, elements=2**28) == "model_out_of_memory"
    assert [ask(loaded, 6) for loaded in two] == ["", ""]
    assert {loaded.pid for loaded in two} == {pid}
    for loaded in two:
        loaded.close()


STARTER = """
import sys
from pathlib import Path
import msgspec
from modelyard.models.manifest import Manifest
from sharedmodels import shared
folder, run, manifest, server = sys.argv[1:]
loaded = shared((Path(folder), msgspec.json.decode(manifest, type=Manifest)), Path(run), int(server))
print(loaded.pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_worker_leaves_the_process_to_the_others(version: Version, tmp_path: Path) -> None:
    """K2: the worker that started the process dies by SIGKILL: the process answers the other one, the same one."""
    import msgspec

    folder, manifest = version
    arguments = [str(folder), str(tmp_path / "run"), msgspec.json.encode(manifest).decode(), str(os.getpid())]
    found = os.pathsep.join(sys.path)  # as here: the tests' own modules are installed nowhere
    worker = subprocess.Popen(
        [sys.executable, "-c", STARTER, *arguments], env={**os.environ, "PYTHONPATH": found},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        loaded = shared(version, tmp_path / "run")
        assert loaded.pid == pid
        worker.kill()
        worker.wait()
        assert [ask(loaded, value) for value in range(20)] == [""] * 20
        assert loaded.pid == pid
        loaded.close()
    finally:
        worker.kill()
        worker.communicate()


def test_it_ends_with_the_server(version: Version, tmp_path: Path) -> None:
    """K10: once the server is gone, whatever is still connected."""
    server = subprocess.Popen(["sleep", "600"])
    try:
        loaded = shared(version, tmp_path / "run", server.pid)
        pid = loaded.pid
        assert lives(pid)
    finally:
        server.kill()
        server.wait()
    until(lambda: not lives(pid), "its end", 5)
    loaded.close()


def test_it_ends_when_it_is_left_alone(version: Version, tmp_path: Path) -> None:
    """A while after its last worker left; until then it is found again."""
    one = shared(version, tmp_path / "run", linger_s=1.0)
    pid = one.pid
    one.close()
    two = shared(version, tmp_path / "run", linger_s=1.0)
    assert two.pid == pid
    two.close()
    until(lambda: not lives(pid), "its end", 8)


def test_many_that_need_it_at_once_start_one(version: Version, tmp_path: Path) -> None:
    """Eight workers at the same moment: one process, and every run gets its own answer (P3)."""
    found: list[SharedModel] = []
    starts = [threading.Thread(target=lambda: found.append(shared(version, tmp_path / "run"))) for _ in range(8)]
    for one in starts:
        one.start()
    for one in starts:
        one.join(60)
    assert len(found) == 8
    assert len({loaded.pid for loaded in found}) == 1
    codes: list[str] = []
    callers = [
        beside(lambda i=i: "".join(ask(found[i], 100 * i + n) for n in range(200)), codes) for i in range(len(found))
    ]
    for one in callers:
        one.join(60)
    assert codes == [""] * 8
    for loaded in found:
        loaded.close()


def test_a_crash_loop_ends(version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K6: whichever worker sees them, the fifth death within a minute makes the version unhealthy, once; then it is not
    started for a while."""
    monkeypatch.setattr(model, "BACKOFF_S", (0.0, 0.05))
    board = Board.create(tmp_path / "board")
    guilty: list[int] = []
    two = [shared(version, tmp_path / "run", **{"models.unhealthy_deaths": 5}) for _ in range(2)]
    for number, loaded in enumerate(two):
        notes = RunNotes(board.runs(number), UnhealthyVersions(tmp_path / "ill"), SystemClock())
        notes.judge(Suspects(5, 60.0), guilty.append)
        notes.watched("tree", "1", loaded)
    pids = set()
    for death in range(5):
        back(*two)
        assert guilty == []
        pid = two[death % 2].pid
        pids.add(pid)
        os.kill(int(pid or 0), signal.SIGKILL)
        until(lambda pid=pid: all(loaded.pid != pid for loaded in two), "the death to be seen")
    until(lambda: guilty, "the verdict")
    assert len(pids) == 5
    for loaded in two:
        with pytest.raises(UnavailableError):
            loaded.run({"x": np.ones((1, 2), np.float32), "elements": np.array([1])}, ())
        assert loaded._starting is None
        loaded.close()
    assert guilty == [version_token("tree", "1")]
    board.close()


def _hurt(version: Version, run: Path, rounds: int, seed: int) -> tuple[int, dict[str, int], list[str]]:
    """Three workers that never cease to ask, and a process that is killed or stopped so often: how many deaths were
    reported, what the runs came to, and the deaths' codes in turn."""
    draw = random.Random(seed)
    models = [shared(version, run, **NEVER) for _ in range(3)]
    reported: list[str] = []
    counts: Counter[str] = Counter()
    over = threading.Event()

    def call(loaded: SharedModel) -> str:
        value = 0
        while not over.is_set():
            value += 1
            code = ask(loaded, value % 1000)
            counts[code or "right"] += 1
            if code:
                time.sleep(0.01)
        return ""

    finished: list[str] = []
    for loaded in models:
        loaded.report_deaths(lambda code, guilty: reported.append(code))
    callers = [beside(lambda loaded=loaded: call(loaded), finished) for loaded in models]
    try:
        for number in range(rounds):
            until(lambda: len({loaded.pid for loaded in models} - {None}) == 1, "one process for all", 30)
            until(lambda number=number: len(reported) == number, "the deaths to be counted")
            pid = models[0].pid
            os.kill(int(pid or 0), draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
            until(lambda pid=pid: all(loaded.pid not in (pid, None) for loaded in models), "another process", 30)
    finally:
        over.set()
        for caller in callers:
            caller.join(60)
    assert finished == [""] * 3  # a wrong answer ends its caller
    for loaded in models:
        loaded.close()
    return len(reported), dict(counts), reported


TRANSIENT = {"right", "model_crashed", "model_timeout", "model_not_ready"}


def test_deaths_under_load_are_each_counted_once(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K2, P3: three workers without a pause between their runs, four deaths: no wrong answer, each counted once."""
    monkeypatch.setattr(model, "BACKOFF_S", (0.0,))
    deaths, counts, _ = _hurt(version, tmp_path / "run", 4, 3)
    assert deaths == 4
    assert set(counts) <= TRANSIENT


@pytest.mark.long
def test_many_deaths_under_load_are_each_counted_once(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: the same with two hundred deaths; prints what the runs came to."""
    monkeypatch.setattr(model, "BACKOFF_S", (0.0,))
    deaths, counts, codes = _hurt(version, tmp_path / "run", 200, 11)
    print(f"{deaths} deaths ({dict(Counter(codes))}), runs: {counts}")
    assert deaths == 200
    assert set(counts) <= TRANSIENT


def test_rows_that_do_not_fit_are_refused_with_the_setting(pair: tuple[SharedModel, SharedModel]) -> None:
    """More than models.jail_tensor_bytes: tensors_too_large, and the next run is answered."""
    back(*pair)
    rows: Array = np.zeros((2**20, 2), np.float32)
    with pytest.raises(ModelError) as refused:
        pair[0].run({"x": rows, "elements": np.array([1])}, ())
    assert (refused.value.code, refused.value.detail["field"]) == ("tensors_too_large", "models.jail_tensor_bytes")
    assert ask(pair[0], 7) == ""


def test_a_death_is_noted_once_and_forgotten_after_the_verdict(tmp_path: Path) -> None:
    """The list of deaths: known again, pauses that grow, too many of them, and a new beginning."""
    deaths = DeathList(Place(tmp_path, "v"), bounded(deaths=3, within_s=60.0))
    assert deaths.pause_s(10.0) == 0.0
    assert deaths.note("a", 10.0) == place.Noted(True, False)
    assert deaths.note("a", 11.0) == place.Noted(False, False)
    assert deaths.note("b", 12.0) == place.Noted(True, False)
    assert deaths.pause_s(12.0) == model.BACKOFF_S[1]
    assert deaths.note("c", 80.0) == place.Noted(True, False)
    assert deaths.note("d", 81.0) == place.Noted(True, False)
    assert deaths.note("e", 82.0) == place.Noted(True, True)
    assert deaths.pause_s(82.0) is None
    assert deaths.note("e", 83.0) == place.Noted(False, False)
    assert deaths.pause_s(82.0 + model.DOWN_S) == 0.0
    (tmp_path / "v.deaths").write_bytes(b"no list")
    assert deaths.pause_s(90.0) == 0.0


def test_a_lock_that_is_held_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UnavailableError after LOCK_WITHIN_S; the end of its holder frees it."""
    monkeypatch.setattr(place, "LOCK_WITHIN_S", 0.05)
    held = Place(tmp_path, "v")
    with held.locked(), pytest.raises(UnavailableError), held.locked():
        pass
    with held.locked():
        pass
