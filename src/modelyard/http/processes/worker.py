"""One HTTP worker: accepts on the inherited socket, beats its heart on the loop, and stops in order (P2, P9)."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog
from uvicorn.config import Config

from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.processes.board import Board, WorkerState
from modelyard.http.protocol import Shared, bind
from modelyard.predict import Predictor

log = structlog.get_logger()

BEAT_S = 0.25
ANSWER_WITHIN_S = 22.0
"""What is unanswered this long after the signal gets 503; an orchestrator kills after 30 (hot path contract)."""


class Worker:
    """The serving side of one worker process. `run` returns when it has stopped.

    `reason` says why it is not ready, "" if it is; `poll` is called twice a second; `control` ends at end-of-file when the parent dies.
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
        watch = loop.create_task(self._watch_parent())
        server = await loop.create_server(self._protocol_factory(loop), sock=self._listener)
        log.info(Event.WORKER_STARTED, slot=self._slot)
        await self._stop.wait()
        await self._drain(server)
        for task in (beat, watch):
            task.cancel()
        self._board.leave(self._slot)

    def stop(self) -> None:
        """The first call starts the stop, the second hastens it."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _protocol_factory(self, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
        protocol = bind(self._shared)
        config = Config(
            self._app, http=protocol, ws="none", lifespan="off", access_log=False, log_config=None, loop="none"
        )
        config.load()
        return lambda: protocol(config, self._shared.state, {}, loop)

    async def _beat(self) -> None:
        """Turns with the loop: heartbeat, readiness, date, deadlines."""
        second = half = 0.0
        while True:
            self._board.beat(self._slot)
            draining = self._shared.draining or self._stop.is_set()
            ready = not self._reason()
            self._board.set_state(
                self._slot,
                WorkerState.DRAINING if draining else WorkerState.READY if ready else WorkerState.STARTING,
            )
            now = time.monotonic()
            if now - half >= 0.5:
                half = now
                self._poll()
            if now - second >= 1.0:
                second = now
                self._each_second()
            await asyncio.sleep(BEAT_S)

    def _each_second(self) -> None:
        self._shared.renew_date()
        self._predictor.expire(time.perf_counter())
        now = asyncio.get_running_loop().time()
        for connection in list(self._shared.connections):
            connection.sweep(now)

    async def _watch_parent(self) -> None:
        """A worker does not outlive its parent: nobody else would replace or stop it."""
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self._control, 64):
            pass
        log.warning(Event.PARENT_LOST, slot=self._slot)
        self.stop()

    async def _drain(self, server: asyncio.AbstractServer) -> None:
        """The stop order of the hot path contract: ready false, serve on, stop accepting, answer, give up, leave."""
        started = time.monotonic()
        log.info(Event.WORKER_DRAINING, slot=self._slot)
        self._board.set_state(self._slot, WorkerState.DRAINING)
        self._shared.draining = True
        await self._pause(self._settings.http.drain_delay_s)
        server.close()
        while self._owed() and time.monotonic() - started < ANSWER_WITHIN_S:
            if self._hurry.is_set() and time.monotonic() - started > self._settings.http.drain_delay_s + 5:
                break
            for connection in list(self._shared.connections):
                if connection.idle:
                    connection.transport.close()
            await asyncio.sleep(0.02)
        self._predictor.expire()
        for connection in list(self._shared.connections):
            if connection.idle or time.monotonic() - started >= ANSWER_WITHIN_S:
                connection.transport.close()
        await self._flush_sockets()

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
        for _ in range(50):
            if not any(c.transport.get_write_buffer_size() for c in self._shared.connections):
                return
            await asyncio.sleep(0.02)
