"""Jobs, a loop that turns when told, and an executor that runs when told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from modelyard.batching.batcher import Batcher
from modelyard.batching.ports import Together
from modelyard.core.errors import ModelyardError
from modelyard.core.settings import BatchingSettings
from modelyard.core.types import DecodedRequest, Servable, Tensors


class StubJob:
    """One request of `rows` rows that hold its own number; notes what it got."""

    def __init__(self, servable: Servable, number: float, rows: int = 1, columns: int = 2) -> None:
        self.servable = servable
        self.number = number
        self.request = DecodedRequest({"x": np.full((rows, columns), number, np.float32)}, rows)
        self.over = False
        self.outputs: list[Tensors] = []
        self.errors: list[ModelyardError] = []
        self.takes: Callable[[], None] = lambda: None

    def succeed(self, outputs: Tensors, started_s: float, ended_s: float) -> None:
        """Takes its rows."""
        assert ended_s >= started_s
        self.takes()
        self.outputs.append(outputs)

    def fail(self, error: ModelyardError) -> None:
        """Takes its refusal."""
        self.errors.append(error)

    @property
    def is_right(self) -> bool:
        """Whether it got twice its own rows, once."""
        (outputs,) = self.outputs
        return not self.errors and np.array_equal(outputs["y"], self.request.inputs["x"] * 2)


class HandLoop:
    """asyncio's call_soon; `turn` runs what was scheduled before it."""

    def __init__(self) -> None:
        self.scheduled: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Schedules."""
        self.scheduled.append((call, arguments))

    call_soon_threadsafe = call_soon

    def turn(self) -> None:
        """One turn."""
        calls, self.scheduled = self.scheduled, []
        for call, arguments in calls:
            call(*arguments)

    def settle(self) -> None:
        """Turns until nothing is scheduled."""
        while self.scheduled:
            self.turn()


class HandExecutor(Executor):
    """Runs a submitted call when `step` says so."""

    def __init__(self) -> None:
        self.queue: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.closed = False

    def submit(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:  # type: ignore[override]
        """Keeps the call."""
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self.queue.append((future, lambda: call(*arguments, **named)))
        return future

    def step(self) -> None:
        """Runs the oldest call."""
        future, call = self.queue.pop(0)
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)


class Bench:
    """A batcher over both; `turns` lists what was settled, turn by turn."""

    def __init__(self, together: Together | None = None, **settings: Any) -> None:
        self.loop, self.executor = HandLoop(), HandExecutor()
        self.turns: list[list[StubJob]] = []
        chosen = BatchingSettings(**{"max_loop_run_us": 1e9, **settings})
        self.batcher = Batcher(self.loop, self.executor, chosen, self._settle, together)  # type: ignore[arg-type]

    def _settle(self, jobs: Sequence[Any]) -> None:
        self.turns.append(list(jobs))

    @property
    def settled(self) -> list[StubJob]:
        """All jobs that were settled, in order."""
        return [job for turn in self.turns for job in turn]

    def submit(self, *jobs: StubJob) -> None:
        """Submits them in one turn."""
        for job in jobs:
            self.batcher.submit(job)
