"""The parent: holds the listening socket, keeps workers and drain alive, replaces them, and stops them in order.

It imports nothing heavy and answers no request, so that it outlives whatever a model or a library does. Workers
inherit the socket: a worker that dies takes no connection of the queue with it, as a closed listener of SO_REUSEPORT
would (nginx ticket 1300).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

import structlog

from modelyard.core.events import Event
from modelyard.http.processes.board import SLOTS, Board, WorkerState

log = structlog.get_logger()

TICK_S = 0.1
STALL_S = 10.0
"""A worker whose loop has not turned for this long is replaced."""
SUCCESSOR_READY_S = 60.0
STOP_WITHIN_S = 25.0
"""Workers end within 22 s and a little; an orchestrator kills after 30."""
DRAIN_UNTIL_S = 28.0
MAX_BACKOFF_S = 5.0


class Child:
    """One worker process and the parent's end of its control socket."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.control = control
        self.started_s = time.monotonic()
        self.replaces: Child | None = None
        self.stopping = False


class Supervisor:
    """Runs until a stop; `run` returns the exit status.

    `spawn_worker(slot, control_fd, successor)` and `spawn_drain()` start the processes. `on_ready` is called once,
    when the first worker accepts.
    """

    def __init__(
        self,
        board: Board,
        workers: int,
        spawn_worker: Callable[[int, int, bool], subprocess.Popen[bytes]],
        spawn_drain: Callable[[], subprocess.Popen[bytes]],
        on_ready: Callable[[], None],
    ) -> None:
        self._board = board
        self._count = workers
        self._spawn_worker = spawn_worker
        self._spawn_drain = spawn_drain
        self._on_ready = on_ready
        self._children: list[Child] = []
        self._drain: subprocess.Popen[bytes] | None = None
        self._drain_started_s = 0.0
        self._announced = False
        self._stop_asked_s: float | None = None
        self._reload = 0
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
        self._reload += 1

    def _on_hangup(self, *_: object) -> None:
        self._signal(self._children, signal.SIGHUP)

    def _watch(self) -> None:
        self._reap()
        self._replace_stalled()
        self._finish_replacements()
        if self._reload and not any(child.replaces or child.stopping for child in self._children):
            self._reload_next()
        missing = self._count - sum(not child.stopping and child.replaces is None for child in self._children)
        if missing > 0 and time.monotonic() >= self._respawn_at_s:
            self._start_worker()
        if self._drain is None and time.monotonic() - self._drain_started_s > 1.0:
            self._start_drain()
        if not self._announced and any(self._accepts(child) for child in self._children):
            self._announced = True
            self._on_ready()

    def _reap(self) -> None:
        for child in list(self._children):
            status = child.process.poll()
            if status is None:
                continue
            self._children.remove(child)
            self._board.leave(child.slot)
            child.control.close()
            for other in self._children:
                if other.replaces is child:
                    other.replaces = None
            if child.stopping:
                log.info(Event.WORKER_STOPPED, slot=child.slot, pid=child.process.pid)
                continue
            log.error(Event.WORKER_LOST, slot=child.slot, pid=child.process.pid, status=status)
            lived_s = time.monotonic() - child.started_s
            self._deaths = 0 if lived_s > 60 else self._deaths + 1
            self._respawn_at_s = time.monotonic() + min(MAX_BACKOFF_S, 0.05 * 2**self._deaths - 0.05)
        if self._drain is not None and self._drain.poll() is not None:
            log.error(Event.DRAIN_STOPPED, pid=self._drain.pid, status=self._drain.returncode)
            self._drain = None

    def _replace_stalled(self) -> None:
        now = time.monotonic()
        for child in self._children:
            beat = self._board.heartbeat(child.slot)
            if not beat or child.stopping or any(other.replaces is child for other in self._children):
                continue
            if now - beat > STALL_S:
                log.error(Event.WORKER_LOST, slot=child.slot, pid=child.process.pid, stalled_s=round(now - beat, 1))
                self._start_worker(replaces=child)
                return

    def _finish_replacements(self) -> None:
        """A successor that is ready lets its predecessor go; one that never gets ready goes itself."""
        for child in self._children:
            old = child.replaces
            if old is None:
                continue
            if self._accepts(child):
                child.replaces = None
                old.stopping = True
                stalled = time.monotonic() - self._board.heartbeat(old.slot) > STALL_S
                self._signal([old], signal.SIGKILL if stalled else signal.SIGTERM)
            elif time.monotonic() - child.started_s > SUCCESSOR_READY_S:
                child.replaces = None
                child.stopping = True
                self._signal([child], signal.SIGTERM)

    def _reload_next(self) -> None:
        """Replaces the workers one by one, oldest first, successor ready first (SIGUSR2)."""
        if self._reload == 1:
            self._reload_left = list(self._children)
            self._reload = 2
        while self._reload_left:
            old = self._reload_left.pop(0)
            if old in self._children:
                self._start_worker(replaces=old)
                return
        self._reload = 0
        log.info(Event.SERVER_RELOADED, workers=len(self._children))

    def _accepts(self, child: Child) -> bool:
        return self._board.heartbeat(child.slot) > 0

    def _start_worker(self, replaces: Child | None = None) -> None:
        taken = {child.slot for child in self._children}
        slot = next(number for number in range(SLOTS) if number not in taken)
        self._board.leave(slot)
        ours, theirs = socket.socketpair()
        process = self._spawn_worker(slot, theirs.fileno(), replaces is not None or self._announced)
        theirs.close()
        child = Child(slot, process, ours)
        child.replaces = replaces
        self._children.append(child)

    def _start_drain(self) -> None:
        self._drain_started_s = time.monotonic()
        self._drain = self._spawn_drain()

    def _stop(self) -> int:
        """Workers first, then a last drain pass; whatever does not end in time is killed: its records are spooled."""
        asked = self._stop_asked_s or time.monotonic()
        log.info(Event.SERVER_DRAINING)
        for child in self._children:
            self._board.set_state(child.slot, WorkerState.DRAINING)
        self._signal(self._children, signal.SIGTERM)
        statuses = [self._wait(child.process, asked + STOP_WITHIN_S) for child in self._children]
        if self._drain is not None:
            self._terminate(self._drain, signal.SIGTERM)
            statuses.append(self._wait(self._drain, asked + DRAIN_UNTIL_S))
        log.info(Event.SERVER_STOPPED, seconds=round(time.monotonic() - asked, 1))
        return 0 if all(status == 0 for status in statuses) else 1

    def _wait(self, process: subprocess.Popen[bytes], until_s: float) -> int:
        try:
            return process.wait(max(0.1, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._terminate(process, signal.SIGKILL)
            return process.wait()

    def _signal(self, children: Sequence[Child], number: signal.Signals) -> None:
        for child in children:
            self._terminate(child.process, number)

    @staticmethod
    def _terminate(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        if process.poll() is None:
            os.kill(process.pid, number)
