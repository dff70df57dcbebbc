"""All requests of one turn of the loop form a batch: nobody waits when the server is idle (API-6)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from time import perf_counter

from modelyard.batching.lane import Lane
from modelyard.batching.ports import Job, Settle, Together
from modelyard.batching.run import Ran, run_metered
from modelyard.core.errors import InternalError, ModelyardError
from modelyard.core.settings import BatchingSettings
from modelyard.core.types import Servable, Tensors

FORGET_AFTER_S = 60.0
"""A lane that ran nothing for this long may go: its version can be freed then."""


class Batcher:
    """Runs jobs and hands them to `settle`, each exactly once, in the turn in which it finished.

    A version whose runs are short runs on the loop, others in `executor`, one batch at a time, while the loop
    gathers the next. `together` may answer a whole batch that ran as one. All methods are called on the loop's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        settings: BatchingSettings,
        settle: Settle,
        together: Together | None = None,
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._settings = settings
        self._settle = settle
        self._together = together
        self._lanes: dict[int, Lane] = {}
        self.full: dict[int, ModelyardError] = {}
        """What is refused of a version (by its servable's id) until its next batch leaves, and why: whoever asks
        before a body is decoded saves that."""
        self._awake: list[Lane] = []
        self._finished: list[Job] = []
        self._scheduled = self._held = False

    def submit(self, job: Job) -> None:
        """The job runs in this turn, or as soon as its version is free."""
        lane = self._lanes.get(id(job.servable))
        if lane is None or lane.servable is not job.servable:
            lane = self._open_lane(job.servable)
        if not lane.in_loop and not self._has_room(lane, job):
            return  # at once, not behind the queue
        lane.waiting.append(job)
        if not self._held:
            lane.waited = True
        if not lane.running and len(lane.waiting) == 1:
            self._awake.append(lane)
        self._schedule()

    def _has_room(self, lane: Lane, job: Job) -> bool:
        """Whether the job may wait for a version that is too slow for the loop; if not, it is refused in this turn."""
        if lane.waiting and lane.waiting[0].over:
            self._finished += lane.shed()
        refusal = lane.refusal(job)
        if refusal is not None:
            self.full[id(lane.servable)] = refusal
            self.refuse(job, refusal)
        return refusal is None

    def refuse(self, job: Job, error: ModelyardError) -> None:
        """The job may not run: it hears so with this turn's others."""
        job.fail(error)
        self.finish(job)

    def finish(self, job: Job) -> None:
        """The job needs no run (it was refused): it is settled with this turn's others."""
        self._finished.append(job)
        self._schedule()

    def _open_lane(self, servable: Servable) -> Lane:
        """A lane for a new version; lanes that rested for long go, so that old versions can be freed."""
        since_s = perf_counter() - FORGET_AFTER_S
        self._lanes = {
            key: lane for key, lane in self._lanes.items() if lane.waiting or lane.running or lane.used_s > since_s
        }
        lane = Lane(servable, self._settings)
        self._lanes[id(servable)] = lane
        return lane

    def hold(self) -> None:
        """What is submitted from now on runs in the `turn` that the caller makes, in this turn of the loop."""
        self._scheduled = self._held = True

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.turn)

    def turn(self) -> None:
        """One batch per version that waits; then everything that finished is settled, in one go."""
        self._scheduled = self._held = False
        lanes, self._awake = self._awake, []
        for lane in lanes:
            self._advance(lane)
        finished, self._finished = self._finished, []
        if finished:
            self._settle(finished)

    def _advance(self, lane: Lane) -> None:
        if lane.running:  # it was awake twice: those who waited had left, and others came
            return
        batch, over = lane.take()
        self._finished += over
        self.full.pop(id(lane.servable), None)
        if not batch:
            lane.recount()
            return
        if lane.in_loop:
            self._apply(lane, batch, run_metered(batch, lane.short_s))
            if lane.waiting:
                self._awake.append(lane)
                self._schedule()
        else:
            self._send_off(lane, batch)

    def _send_off(self, lane: Lane, batch: Sequence[Job]) -> None:
        try:
            future = self._executor.submit(run_metered, batch)
        except RuntimeError:  # it takes nothing more: the process is about to end
            self._fail(batch)
            return
        lane.sent(batch)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._returned, lane, batch, done))

    def _returned(self, lane: Lane, batch: Sequence[Job], done: Future[Ran]) -> None:
        lane.returned()
        self.full.pop(id(lane.servable), None)  # here too: nobody may wait, then no next batch would do it
        if done.exception() is None:
            self._apply(lane, batch, done.result())
        else:  # not even an Exception: a model that wanted to end the process
            self._fail(batch)
        if lane.waiting:
            self._awake.append(lane)
        self._schedule()

    def _fail(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.fail(InternalError("internal", "The model could not be run."))
        self._finished += batch

    def _apply(self, lane: Lane, batch: Sequence[Job], ran: Ran) -> None:
        """Gives each job its own outcome; one that cannot take it fails alone."""
        if not self._shared_out(lane, batch, ran):
            for job, (result, started, ended) in zip(batch, ran.outcomes(), strict=True):
                if not job.over:
                    _give(job, result, started, ended)
        self._finished += batch
        lane.note_run(ran.run_s, ran.ended_s, sum(job.request.rows for job in batch))

    def _shared_out(self, lane: Lane, batch: Sequence[Job], ran: Ran) -> bool:
        """Whether `together` answered them all; only where nobody was answered, or left, meanwhile."""
        if self._together is None or ran.joint is None or (not lane.in_loop and any(job.over for job in batch)):
            return False
        try:
            return self._together(batch, ran.joint, ran.started_s, ran.ended_s)
        except Exception:
            return False


def _give(job: Job, result: Tensors | ModelyardError, started_s: float, ended_s: float) -> None:
    try:
        if isinstance(result, ModelyardError):
            job.fail(result)
        else:
            job.succeed(result, started_s, ended_s)
    except ModelyardError as error:  # the answer cannot be written in the form that was asked for
        job.fail(error)
    except Exception:
        job.fail(InternalError("internal", "The answer could not be made."))
