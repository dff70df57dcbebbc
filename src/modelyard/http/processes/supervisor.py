"""The parent: holds the listening socket, keeps workers and drain alive, replaces them, and stops them in order.

It imports nothing heavy and answers no request, so that it outlives whatever a model or a library does. Workers
inherit the socket: a worker that dies takes no connection of the queue with it, as a closed listener of SO_REUSEPORT
would (nginx ticket 1300).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from modelyard.core.events import Event
from modelyard.http.processes.board import SLOTS, Board, WorkerState
from modelyard.http.processes.health import HUNG_COUNTS, Suspects

log = structlog.get_logger()

TICK_S = 0.1
STALL_S = 10.0
"""A worker whose loop has not turned for this long is replaced."""
SUCCESSOR_READY_S = 60.0
STOP_WITHIN_S = 25.0
"""Workers end within 22 s and a little; an orchestrator kills after 30."""
DRAIN_UNTIL_S = 28.0
REFRESH = b"r"
"""What a worker hears on its control socket when it should read its certificate again."""
REFRESH_S = 600.0
"""How often the parent looks whether its certificate needs renewal."""
QUICK_DEATH_S = 5.0
"""Workers that die younger than this are started with growing pauses: it may be a crash loop."""
MAX_BACKOFF_S = 5.0


class Process(Protocol):
    """A child process, however it was started; the methods of subprocess.Popen."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """Its status once `poll` or `wait` has seen its end."""

    def poll(self) -> int | None:
        """The same, after looking."""

    def wait(self, timeout: float | None = None) -> int:
        """Its status; subprocess.TimeoutExpired."""


class Child:
    """One worker process and the parent's end of its control socket."""

    def __init__(self, slot: int, process: Process, control: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.control = control
        self.started_s = time.monotonic()
        self.replaces: Child | None = None
        self.stop_asked_s: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self.stop_asked_s is not None


class Supervisor:
    """Runs until a stop; `run` returns the exit status.

    `spawn_worker(slot, control_fd, successor)` and `spawn_drain(successor)` start processes. `on_ready` is called once,
    when the first worker accepts; `refresh(asked)` on SIGHUP (True) and now and then (False): it says whether the
    workers should read their certificate again. `on_unhealthy` is called with the token of each version that
    `suspects` finds guilty of its workers' deaths; both may be replaced before `run`.
    """

    def __init__(
        self,
        board: Board,
        workers: int,
        spawn_worker: Callable[[int, int, bool], Process],
        spawn_drain: Callable[[bool], Process],
        on_ready: Callable[[], None],
        refresh: Callable[[bool], bool] = lambda asked: False,
    ) -> None:
        self._board = board
        self._count = workers
        self._spawn_worker = spawn_worker
        self._spawn_drain = spawn_drain
        self._on_ready = on_ready
        self.suspects = Suspects(deaths=5, within_s=60.0)
        self.on_unhealthy: Callable[[int], None] = lambda token: None
        self._refresh = refresh
        self._refresh_asked = False
        self._refreshed_s = time.monotonic()
        self._children: list[Child] = []
        self._drain: Process | None = None
        self._drain_started_s = 0.0
        self._announced = False
        self._stop_asked_s: float | None = None
        self._reload_asked = False
        self._to_reload: list[Child] | None = None
        self._deaths = 0
        self._respawn_at_s = 0.0
        self._wake, self._woken = socket.socketpair()

    def run(self) -> int:
        """Starts everything and watches it until SIGTERM or SIGINT; 0 if all ended in order."""
        self._install_signals()
        self._start_drain()
        for _ in range(self._count):
            self._start_worker()
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            while self._stop_asked_s is None:
                if selector.select(TICK_S):
                    self._woken.recv(4096)
                self._watch()
        return self._stop()

    def _install_signals(self) -> None:
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGUSR2, self._on_reload)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _on_stop(self, *_: object) -> None:
        if self._stop_asked_s is None:
            self._stop_asked_s = time.monotonic()
        else:
            self._signal(self._children, signal.SIGTERM)

    def _on_reload(self, *_: object) -> None:
        self._reload_asked = True

    def _on_hangup(self, *_: object) -> None:
        self._refresh_asked = True

    def _refresh_files(self) -> None:
        """Sees to the certificate, and tells the workers by their control sockets: a signal could meet one that has
        no handler yet."""
        asked, self._refresh_asked = self._refresh_asked, False
        self._refreshed_s = time.monotonic()
        if self._refresh(asked):
            for child in self._children:
                with contextlib.suppress(OSError):
                    child.control.send(REFRESH)

    def _watch(self) -> None:
        if self._refresh_asked or time.monotonic() - self._refreshed_s > REFRESH_S:
            self._refresh_files()
        self._reap()
        self._replace_stalled()
        self._finish_replacements()
        self._kill_overdue()
        if not any(child.replaces or child.stopping for child in self._children):
            self._reload_next()
        missing = self._count - sum(not child.stopping and child.replaces is None for child in self._children)
        if missing > 0:
            self._start_worker()
        if self._drain is None and time.monotonic() - self._drain_started_s > 1.0:
            self._start_drain(successor=True)
        if not self._announced and any(self._accepts(child) for child in self._children):
            self._announced = True
            self._on_ready()

    def _reap(self) -> None:
        for child in list(self._children):
            status = child.process.poll()
            if status is None:
                continue
            self._children.remove(child)
            running = self._board.running(child.slot)
            self._board.leave(child.slot)
            child.control.close()
            for other in self._children:
                if other.replaces is child:
                    other.replaces = None
            if child.stopping:
                log.info(Event.WORKER_STOPPED, slot=child.slot, pid=child.process.pid)
                continue
            log.error(Event.WORKER_LOST, slot=child.slot, pid=child.process.pid, status=status)
            self._blame(running)
            if child.replaces is not None:
                self._to_reload = None  # successors do not live: those that serve stay
            self._back_off(time.monotonic() - child.started_s)
        if self._drain is not None and self._drain.poll() is not None:
            log.error(Event.DRAIN_STOPPED, pid=self._drain.pid, status=self._drain.returncode)
            self._drain = None

    def _blame(self, running: frozenset[int], counts: int = 1) -> None:
        for token in self.suspects.note(running, time.monotonic(), counts):
            self.on_unhealthy(token)

    def _back_off(self, lived_s: float) -> None:
        self._deaths = 0 if lived_s > QUICK_DEATH_S else min(self._deaths + 1, 10)
        self._respawn_at_s = time.monotonic() + min(MAX_BACKOFF_S, 0.05 * 2**self._deaths - 0.05)

    def _replace_stalled(self) -> None:
        now = time.monotonic()
        for child in self._children:
            beat = self._board.heartbeat(child.slot)
            if not beat or child.stopping or any(other.replaces is child for other in self._children):
                continue
            if now - beat > STALL_S or self._board.state(child.slot) == WorkerState.HUNG:
                running = self._board.running(child.slot)
                if self._start_worker(replaces=child):
                    log.error(Event.WORKER_LOST, slot=child.slot, pid=child.process.pid, stalled_s=round(now - beat, 1))
                    self._blame(running, HUNG_COUNTS)
                return

    def _finish_replacements(self) -> None:
        """A successor that is ready lets its predecessor go; one that never gets ready goes itself."""
        for child in self._children:
            old = child.replaces
            if old is None:
                continue
            stalled = time.monotonic() - self._board.heartbeat(old.slot) > STALL_S
            if self._may_succeed(child, old, stalled):
                child.replaces = None
                self._end(old, signal.SIGKILL if stalled else signal.SIGTERM)
            elif time.monotonic() - child.started_s > SUCCESSOR_READY_S:
                child.replaces = None
                self._to_reload = None
                self._end(child, signal.SIGTERM)

    def _may_succeed(self, child: Child, old: Child, stalled: bool) -> bool:
        """It must be ready, unless its predecessor is not either."""
        if stalled or self._board.state(old.slot) != WorkerState.READY:
            return self._accepts(child)
        return self._board.state(child.slot) == WorkerState.READY

    def _kill_overdue(self) -> None:
        """A worker that was told to end and did not is ended."""
        for child in self._children:
            if child.stop_asked_s is not None and time.monotonic() - child.stop_asked_s > STOP_WITHIN_S:
                self._signal([child], signal.SIGKILL)

    def _reload_next(self) -> None:
        """Replaces the workers one by one, oldest first, successor ready first (SIGUSR2)."""
        if self._reload_asked:
            self._reload_asked = False
            self._to_reload = list(self._children)
        if self._to_reload is None:
            return
        while self._to_reload:
            old = self._to_reload[0]
            if old in self._children:
                if self._start_worker(replaces=old):
                    self._to_reload.pop(0)
                return
            self._to_reload.pop(0)
        self._to_reload = None
        log.info(Event.SERVER_RELOADED, workers=len(self._children))

    def _accepts(self, child: Child) -> bool:
        return self._board.heartbeat(child.slot) > 0

    def _start_worker(self, replaces: Child | None = None) -> bool:
        """Whether one was started: not while backing off, nor when the machine has no process or descriptor left."""
        if time.monotonic() < self._respawn_at_s:
            return False
        taken = {child.slot for child in self._children}
        slot = next(number for number in range(SLOTS) if number not in taken)
        self._board.leave(slot)
        ours: socket.socket | None = None
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                process = self._spawn_worker(slot, theirs.fileno(), replaces is not None or self._announced)
        except OSError as error:
            if ours is not None:
                ours.close()
            log.error(Event.WORKER_LOST, slot=slot, reason=str(error))
            self._back_off(0.0)
            return False
        child = Child(slot, process, ours)
        child.replaces = replaces
        self._children.append(child)
        return True

    def _start_drain(self, successor: bool = False) -> None:
        self._drain_started_s = time.monotonic()
        try:
            self._drain = self._spawn_drain(successor)
        except OSError as error:
            log.error(Event.DRAIN_STOPPED, reason=str(error))

    def _stop(self) -> int:
        """Workers first, then a last drain pass; whatever does not end in time is killed: its records are spooled."""
        asked = self._stop_asked_s or time.monotonic()
        log.info(Event.SERVER_DRAINING)
        self._reap()  # whoever died before is no failure of the stop
        for child in self._children:
            self._board.set_state(child.slot, WorkerState.DRAINING)
        self._signal(self._children, signal.SIGTERM)
        statuses = [self._wait(child.process, asked + STOP_WITHIN_S) for child in self._children]
        if self._drain is not None:
            self._terminate(self._drain, signal.SIGTERM)
            self._wait(self._drain, asked + DRAIN_UNTIL_S)  # whatever is left stays in the spool: no failure
        log.info(Event.SERVER_STOPPED, seconds=round(time.monotonic() - asked, 1))
        # One that was still starting has no handler yet, and owed nothing; one that stalled was killed for that.
        in_order = (
            status in (0, -signal.SIGTERM) or child.stopping
            for child, status in zip(self._children, statuses, strict=True)
        )
        return 0 if all(in_order) else 1

    def _wait(self, process: Process, until_s: float) -> int:
        try:
            return process.wait(max(0.1, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._terminate(process, signal.SIGKILL)
            return process.wait()

    def _signal(self, children: Sequence[Child], number: signal.Signals) -> None:
        for child in children:
            self._terminate(child.process, number)

    def _end(self, child: Child, number: signal.Signals) -> None:
        child.stop_asked_s = time.monotonic()
        self._signal([child], number)

    @staticmethod
    def _terminate(process: Process, number: signal.Signals) -> None:
        # A handler may come between a wait's system call and its note of the result.
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.kill(process.pid, number)
