"""The parent: who is started, replaced and ended, and when. Processes and time are in the test's hands."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.http.processes import board as board_module
from modelyard.http.processes import supervisor as supervisor_module
from modelyard.http.processes.board import Board, WorkerState
from modelyard.http.processes.health import Suspects
from modelyard.http.processes.supervisor import (
    DRAIN_UNTIL_S,
    MAX_BACKOFF_S,
    QUICK_DEATH_S,
    STALL_S,
    STOP_WITHIN_S,
    SUCCESSOR_READY_S,
    TICK_S,
    Supervisor,
)
from modelyard.testing import FakeClock


class StubProcess:
    """A child; `dies` sets its status, `signals` lists what it was sent. It obeys SIGTERM unless `stubborn`."""

    def __init__(self, pid: int, slot: int = -1) -> None:
        self.pid = pid
        self.slot = slot
        self.returncode: int | None = None
        self.signals: list[int] = []
        self.stubborn = False

    def poll(self) -> int | None:
        """The status, None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Lets the time pass."""
        if self.returncode is None:
            raise subprocess.TimeoutExpired("child", timeout or 0)
        return self.returncode

    def send(self, number: int) -> None:
        """As the kernel would."""
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.returncode = -9
        elif not self.stubborn:
            self.returncode = 0


class Yard:
    """A supervisor of two workers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        monkeypatch.setattr(supervisor_module, "time", self.clock)
        monkeypatch.setattr(board_module, "time", self.clock)
        monkeypatch.setattr(supervisor_module.os, "kill", self._kill)
        self.board = Board.create(folder / "board")
        self.workers: list[StubProcess] = []
        self.drains: list[StubProcess] = []
        self.successors: list[bool] = []
        self.failing = False
        self.ready = 0
        self.supervisor = Supervisor(self.board, 2, self._spawn_worker, self._spawn_drain, self._on_ready)  # type: ignore[arg-type]

    def _spawn_worker(self, slot: int, control_fd: int, successor: bool) -> StubProcess:
        if self.failing:
            raise OSError(11, "Resource temporarily unavailable")
        self.workers.append(StubProcess(1000 + len(self.workers), slot))
        self.successors.append(successor)
        return self.workers[-1]

    def _spawn_drain(self, successor: bool) -> StubProcess:
        if self.failing:
            raise OSError(11, "Resource temporarily unavailable")
        self.drains.append(StubProcess(2000 + len(self.drains)))
        return self.drains[-1]

    def _on_ready(self) -> None:
        self.ready += 1

    def _kill(self, pid: int, number: int) -> None:
        next(p for p in (*self.workers, *self.drains) if p.pid == pid).send(number)

    def watch(self, seconds: float = TICK_S, beating: bool = True) -> None:
        """Time passes; the supervisor looks every tick."""
        for _ in range(max(1, round(seconds / TICK_S))):
            self.clock.advance(TICK_S)
            for worker in self.alive if beating else ():
                self.beat(worker)
            self.supervisor._watch()

    def beat(self, worker: StubProcess) -> None:
        """Its loop turns, if it ever began to."""
        if self.board.heartbeat(worker.slot):
            self.board.beat(worker.slot)

    def accept(self, worker: StubProcess, state: WorkerState = WorkerState.READY) -> None:
        """It has loaded its models and accepts."""
        self.board.set_state(worker.slot, state)
        self.board.beat(worker.slot)

    @property
    def alive(self) -> list[StubProcess]:
        """Workers that run."""
        return [worker for worker in self.workers if worker.returncode is None]

    def start(self) -> tuple[StubProcess, StubProcess]:
        """Both workers run and are ready, for long enough to be no quick death."""
        self.watch(2 * TICK_S)
        one, two = self.workers
        self.accept(one)
        self.accept(two)
        self.watch(QUICK_DEATH_S + 1)
        return one, two


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """A fresh one."""
    made = Yard(tmp_path, monkeypatch)
    yield made
    for child in made.supervisor._children:
        child.control.close()
    made.supervisor._wake.close()
    made.supervisor._woken.close()
    made.board.close()


def test_it_says_once_that_the_first_accepts(yard: Yard) -> None:
    """Ready is announced with the first worker that accepts; workers after that count as successors."""
    yard.watch(1)
    assert yard.ready == 0
    yard.start()
    assert yard.ready == 1
    assert yard.successors == [False, False]
    yard.workers[0].returncode = -9
    yard.watch(1)
    assert (yard.ready, yard.successors[-1]) == (1, True)


def test_a_worker_that_dies_has_a_successor_at_once(yard: Yard) -> None:
    """The next look starts one, in a slot of its own; the dead one's slot is empty."""
    one, two = yard.start()
    one.returncode = -9
    yard.watch(2 * TICK_S)
    assert len(yard.workers) == 3
    assert yard.workers[2].slot != two.slot
    assert yard.board.heartbeat(yard.workers[2].slot) == 0


def test_a_crash_loop_is_slowed_and_forgiven(yard: Yard) -> None:
    """Workers that die young come ever later, at most MAX_BACKOFF_S; after one that lived, at once again."""
    yard.start()
    pauses = []
    for _ in range(12):
        started, died_s = len(yard.workers), yard.clock.monotonic()
        yard.workers[-1].returncode = -11
        while len(yard.workers) == started:
            yard.watch()
        pauses.append(round(yard.clock.monotonic() - died_s, 3))
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2 * TICK_S
    started = len(yard.workers)
    yard.workers[-1].returncode = -11
    yard.watch(MAX_BACKOFF_S - 1)
    assert len(yard.workers) == started
    yard.watch(2)
    assert len(yard.workers) == started + 1
    yard.accept(yard.workers[-1])
    yard.watch(QUICK_DEATH_S + 1)
    yard.workers[-1].returncode = -9
    yard.watch(2 * TICK_S)
    assert len(yard.workers) == started + 2


def test_no_process_left_is_waited_for(yard: Yard) -> None:
    """When nothing can be forked, the supervisor goes on, tries again with pauses, and heals; no descriptor is lost."""
    one, _ = yard.start()
    yard.failing = True
    one.returncode = -9
    yard.drains[0].returncode = 1
    yard.watch(30)
    assert len(yard.alive) == 1
    yard.failing = False
    yard.watch(MAX_BACKOFF_S + 1)
    assert len(yard.alive) == 2
    assert yard.drains[-1].returncode is None


def test_a_stalled_worker_is_replaced_successor_first(yard: Yard) -> None:
    """Its loop does not turn: a successor is started beside it, and only when that accepts it is killed."""
    one, two = yard.start()
    for _ in range(round((STALL_S + 1) / TICK_S)):
        yard.beat(two)
        yard.watch(beating=False)
    assert len(yard.alive) == 3
    assert one.signals == []
    yard.accept(yard.workers[2], WorkerState.STARTING)
    yard.beat(two)
    yard.watch(beating=False)
    assert one.signals == [signal.SIGKILL]
    yard.watch(1)
    assert yard.alive == [two, yard.workers[2]]


def test_a_stalled_worker_without_a_successor_is_tried_again_with_pauses(yard: Yard) -> None:
    """Successors that die at once are not started ten times a second."""
    _, two = yard.start()
    for _ in range(round((STALL_S + 20) / TICK_S)):
        yard.beat(two)
        yard.watch(beating=False)
        yard.workers[-1].returncode = -9 if len(yard.workers) > 2 else None
    assert 3 <= len(yard.workers) <= 12


def test_reload_replaces_one_by_one(yard: Yard) -> None:
    """SIGUSR2: a successor for the first; ready, the first is told to end; then the second. Never fewer than two."""
    one, two = yard.start()
    one.stubborn = two.stubborn = True
    yard.supervisor._on_reload()
    yard.watch(1)
    assert (len(yard.alive), one.signals) == (3, [])
    yard.accept(yard.workers[2])
    yard.watch(1)
    assert (one.signals, two.signals) == ([signal.SIGTERM], [])
    assert len(yard.workers) == 3, "the next one waits until the first has ended"
    one.returncode = 0
    yard.watch(1)
    yard.accept(yard.workers[3])
    yard.watch(1)
    assert two.signals == [signal.SIGTERM]
    two.returncode = 0
    yard.watch(5)
    assert yard.alive == yard.workers[2:]
    assert len(yard.workers) == 4


@pytest.mark.parametrize("asked", [2, 3, 7])
def test_reloads_asked_for_at_once_are_one(yard: Yard, asked: int) -> None:
    """Several SIGUSR2 before the supervisor looks: one reload."""
    yard.start()
    for _ in range(asked):
        yard.supervisor._on_reload()
    for _ in range(10):
        yard.watch(1)
        yard.accept(yard.workers[-1])
    assert len(yard.workers) == 4


def test_a_reload_during_a_reload_begins_anew(yard: Yard) -> None:
    """Whoever asks while one is under way gets workers that were started after that."""
    yard.start()
    yard.supervisor._on_reload()
    yard.watch(1)
    yard.supervisor._on_reload()
    for _ in range(20):
        yard.watch(1)
        yard.accept(yard.workers[-1])
    assert len(yard.alive) == 2
    assert set(yard.alive).isdisjoint(yard.workers[:3])


def test_a_successor_that_is_not_ready_replaces_nobody(yard: Yard) -> None:
    """It accepts but its models do not load: the worker that serves stays; after SUCCESSOR_READY_S the successor goes
    and the reload is over."""
    one, two = yard.start()
    yard.supervisor._on_reload()
    yard.watch(1)
    yard.accept(yard.workers[2], WorkerState.STARTING)
    yard.watch(SUCCESSOR_READY_S - 5)
    assert (one.signals, yard.workers[2].signals) == ([], [])
    yard.watch(10)
    assert yard.workers[2].signals == [signal.SIGTERM]
    assert yard.alive == [one, two]
    yard.watch(10)
    assert len(yard.workers) == 3


def test_successors_that_die_end_the_reload(yard: Yard) -> None:
    """The new workers cannot live: those that serve stay, all of them."""
    one, two = yard.start()
    yard.supervisor._on_reload()
    yard.watch(1)
    yard.workers[2].returncode = 1
    yard.watch(10)
    assert yard.alive == [one, two]
    assert len(yard.workers) == 3


def test_a_server_without_models_reloads_too(yard: Yard) -> None:
    """Nobody is ready before and after: accepting is enough."""
    one, two = yard.start()
    for worker in (one, two):
        yard.board.set_state(worker.slot, WorkerState.STARTING)
    yard.supervisor._on_reload()
    for _ in range(6):
        yard.watch(1)
        yard.accept(yard.workers[-1], WorkerState.STARTING)
    assert yard.alive == yard.workers[2:]
    assert len(yard.workers) == 4


def test_a_worker_that_does_not_end_is_ended(yard: Yard) -> None:
    """Told to end and hanging: killed after STOP_WITHIN_S, and the reload goes on."""
    one, _ = yard.start()
    one.stubborn = True
    yard.supervisor._on_reload()
    yard.watch(1)
    yard.accept(yard.workers[2])
    yard.watch(STOP_WITHIN_S - 2)
    assert one.signals == [signal.SIGTERM]
    yard.watch(4)
    assert one.returncode == -9
    assert len(yard.workers) == 4


def test_the_drain_comes_back(yard: Yard) -> None:
    """A drain that died is started again, at most once a second."""
    yard.start()
    yard.drains[-1].returncode = -9
    yard.watch(2 * TICK_S)
    assert len(yard.drains) == 2
    for _ in range(30):
        yard.drains[-1].returncode = -9
        yard.watch()
    assert len(yard.drains) <= 6


@pytest.mark.parametrize(
    ("workers", "drain", "status"),
    [((0, 0), 0, 0), ((0, -signal.SIGTERM), 0, 0), ((0, -signal.SIGKILL), 0, 0), ((0, 0), None, 0), ((None, 0), 0, 1)],
)
def test_exit_status(yard: Yard, workers: tuple[int | None, ...], drain: int | None, status: int) -> None:
    """0 if every worker ended in order, or had not begun, or was dead before; a drain that needs longer leaves the rest
    in the spool. 1 if a worker had to be killed."""
    yard.start()
    for process, code in zip((*yard.workers, yard.drains[0]), (*workers, drain), strict=True):
        process.stubborn, process.returncode = True, code
    yard.supervisor._stop_asked_s = yard.clock.monotonic()
    assert yard.supervisor._stop() == status
    assert all(process.returncode is not None for process in (*yard.workers, *yard.drains))


def test_a_stalled_worker_that_was_just_killed_is_no_failure_of_a_stop(yard: Yard) -> None:
    """Replaced and killed for standing still, not yet gone when the server is told to stop: the status is 0."""
    one, _ = yard.start()
    yard.supervisor._end(yard.supervisor._children[0], signal.SIGKILL)
    one.returncode = None
    assert yard.supervisor._stop() == 0


def test_stopping_asks_workers_before_the_drain(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain ends last, when nothing is written any more, and everything is over before an orchestrator kills."""
    one, two = yard.start()
    order: list[int] = []
    send = StubProcess.send
    monkeypatch.setattr(StubProcess, "send", lambda self, n: (order.append(self.pid), send(self, n))[0])
    assert yard.supervisor._stop() == 0
    assert order == [one.pid, two.pid, yard.drains[0].pid]
    assert STOP_WITHIN_S < DRAIN_UNTIL_S < 30


def test_a_process_that_is_gone_already_is_no_error(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second SIGTERM may come just when a worker ended."""
    yard.start()

    def gone(*_: Any) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(supervisor_module.os, "kill", gone)
    yard.supervisor._on_stop()
    yard.supervisor._on_stop()


def test_a_version_whose_runs_kill_workers_is_named(yard: Yard) -> None:
    """K6: five workers die in the run of a version: its token is handed on, once; deaths outside a run accuse none."""
    named: list[int] = []
    yard.supervisor.on_unhealthy = named.append
    yard.start()
    for number in range(6):
        assert named == ([] if number < 5 else [77])
        victim = yard.alive[0]
        yard.board.runs(victim.slot)[0] = 77 if number < 5 else 0
        victim.returncode = -11
        yard.watch(1)
        for worker in yard.alive:
            yard.accept(worker)
        yard.watch(1)
    assert named == [77]


def test_a_worker_with_a_run_that_does_not_end_is_replaced(yard: Yard) -> None:
    """K5: a worker that says it hangs (its loop turns, a thread of it does not) gets a successor, then goes; its
    version is accused once, with the weight of two deaths."""
    named: list[int] = []
    yard.supervisor.on_unhealthy = named.append
    yard.supervisor.suspects = Suspects(deaths=2, within_s=60.0)
    one, _ = yard.start()
    yard.board.runs(one.slot)[1] = 77
    yard.accept(one, WorkerState.HUNG)
    yard.watch(1)
    assert named == [77]
    assert one.signals == []
    yard.accept(yard.workers[2])
    yard.watch(1)
    assert one.signals == [signal.SIGTERM]
    yard.watch(1)
    assert (named, len(yard.alive)) == ([77], 2)
