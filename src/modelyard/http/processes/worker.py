"""One HTTP worker: accepts on the inherited socket, beats its heart on the loop, and stops in order (P2, P9)."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from uvicorn.config import Config

from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.connection.protocol import bind
from modelyard.http.edge.tls import SHUTDOWN_TIMEOUT_S, TlsContext, over_tls
from modelyard.http.processes.board import Board, WorkerState
from modelyard.http.shared import Shared
from modelyard.predict import Predictor

log = structlog.get_logger()

BEAT_S = 0.25
ANSWER_WITHIN_S = 22.0
"""What is unanswered this long after the signal gets 503; an orchestrator kills after 30 (hot path contract)."""
HURRIED_WITHIN_S = 5.0
"""The same after a second signal."""
ORPHANED_WITHIN_S = 3.0
"""The same after the parent's death: a new server may want this one's address."""
REFUSALS_LEAVE_S = 0.5
LEAVE_WITHIN_S = 1.0
"""Once all is answered the process ends within this time, whatever a model's thread still does."""


class Worker:
    """The serving side of one worker process. `run` returns when it has stopped.

    `reason` says why it is not ready, "" if it is; `poll` is called twice a second; `control` ends at end-of-file
    when the parent dies. `exit` ends the process at once: it is called where a thread or the loop hangs.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        listener: socket.socket,
        control: socket.socket,
        board: Board,
        slot: int,
        shared: Shared,
        predictor: Predictor,
        app: Any,
        reason: Callable[[], str],
        poll: Callable[[], None],
        longest_run_s: Callable[[], float] = lambda: 0.0,
        tls: TlsContext | None = None,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._control = control
        self._board = board
        self._slot = slot
        self._shared = shared
        self._predictor = predictor
        self._app = app
        self._reason = reason
        self._poll = poll
        self._longest_run_s = longest_run_s
        self._tls = tls
        self._exit = exit
        self._answer_by_s = math.inf
        self._over = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def reason(self) -> str:
        """Why this worker is not ready; empty if it is."""
        if self._shared.draining or self._stop.is_set():
            return "the server is stopping"
        return self._reason()

    async def run(self) -> None:
        """Serves until SIGTERM, SIGINT or the parent's death; then answers what it owes and returns."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        beat = loop.create_task(self._beat())
        threading.Thread(target=self._watch_parent, args=(loop,), name="parent", daemon=True).start()
        server = await loop.create_server(self._protocol_factory(loop), sock=self._listener, **self._tls_options())
        log.info(Event.WORKER_STARTED, slot=self._slot)
        await self._stop.wait()
        await self._drain(server)
        beat.cancel()
        self._over = True
        self._board.leave(self._slot)
        self._exit_after(LEAVE_WITHIN_S)

    def stop(self) -> None:
        """The first call starts the stop, the second hastens it."""
        now = time.monotonic()
        if self._stop.is_set():
            self._hurry.set()
            self._answer_by_s = min(self._answer_by_s, now + HURRIED_WITHIN_S)
        else:
            self._answer_by_s = now + ANSWER_WITHIN_S
        self._stop.set()

    def orphaned(self) -> None:
        """The parent is dead: nobody would replace or stop this worker, so it ends, and soon."""
        log.warning(Event.PARENT_LOST, slot=self._slot)
        self.stop()
        self._hurry.set()
        self._answer_by_s = min(self._answer_by_s, time.monotonic() + ORPHANED_WITHIN_S)

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls.context,
            "ssl_handshake_timeout": self._settings.http.header_timeout_s,
            "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S,
        }

    def _protocol_factory(self, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
        protocol = bind(self._shared) if self._tls is None else over_tls(bind(self._shared))
        config = Config(
            self._app, http=protocol, ws="none", lifespan="off", access_log=False, log_config=None, loop="none"
        )
        config.load()
        return lambda: protocol(config, self._shared.state, {}, loop)

    async def _beat(self) -> None:
        """Turns with the loop: heartbeat, readiness, date, deadlines."""
        for turn in itertools.count():
            self._board.beat(self._slot)
            self._board.set_state(self._slot, self._state())
            if turn % 2 == 0:
                self._poll()
            if turn % 4 == 0:
                self._each_second()
            await asyncio.sleep(BEAT_S)

    def _state(self) -> WorkerState:
        if self._shared.draining or self._stop.is_set():
            return WorkerState.DRAINING
        if self._longest_run_s() > self._settings.models.max_run_s:
            return WorkerState.HUNG  # nothing ends a thread: another process takes over
        return WorkerState.STARTING if self._reason() else WorkerState.READY

    def _each_second(self) -> None:
        self._shared.renew_date()
        self._predictor.expire(time.perf_counter())
        now = asyncio.get_running_loop().time()
        for connection in list(self._shared.connections):
            try:
                connection.sweep(now)
            except Exception:  # of one connection: without the sweep all others would lose their deadlines
                log.exception(Event.REQUEST_FAILED, slot=self._slot)
                connection.transport.abort()

    def _watch_parent(self, loop: asyncio.AbstractEventLoop) -> None:
        """A worker does not outlive its parent. A thread sees to that: the loop may be what hangs. What the parent
        says before its end is that the certificate should be read again."""
        with suppress(OSError):
            while select.select([self._control], [], [])[0] and self._control.recv(64):
                if self._tls is not None:
                    self._tls.reload()
        if self._over:
            return
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self.orphaned)
        self._exit_after(ORPHANED_WITHIN_S + LEAVE_WITHIN_S)

    def _exit_after(self, seconds: float) -> None:
        """Threads that run a model would keep the process for as long as they like."""
        timer = threading.Timer(seconds, self._exit, (0,))
        timer.daemon = True
        timer.start()

    async def _drain(self, server: asyncio.AbstractServer) -> None:
        """The stop order of the hot path contract: ready false, serve on, stop accepting, answer, give up, leave."""
        log.info(Event.WORKER_DRAINING, slot=self._slot)
        self._board.set_state(self._slot, WorkerState.DRAINING)
        self._shared.draining = True
        await self._pause(self._settings.http.drain_delay_s)
        server.close()
        await self._answer_owed(lambda: self._answer_by_s)
        self._predictor.expire()
        # Through the ASGI twin, or after an fdatasync, a refusal leaves a little later.
        leave_s = time.monotonic() + REFUSALS_LEAVE_S
        await self._answer_owed(lambda: leave_s)
        for connection in list(self._shared.connections):
            connection.transport.close()
        await self._flush_sockets()

    async def _answer_owed(self, until_s: Callable[[], float]) -> None:
        """Waits until nothing is owed any more; connections leave as they become idle."""
        while self._owed() and time.monotonic() < until_s():
            for connection in list(self._shared.connections):
                if connection.idle:
                    connection.transport.close()
            await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _owed(self) -> bool:
        return bool(self._predictor.in_flight) or any(not c.idle for c in self._shared.connections)

    async def _flush_sockets(self) -> None:
        """Gives written answers a moment to leave."""
        for _ in range(25):
            if not any(c.transport.get_write_buffer_size() for c in self._shared.connections):
                return
            await asyncio.sleep(0.02)
