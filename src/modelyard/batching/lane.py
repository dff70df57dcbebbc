"""One version's waiting jobs, and the choice of where they run: on the loop or in the executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter

from modelyard.batching.backlog import Backlog
from modelyard.batching.ports import Job
from modelyard.core.errors import OverloadError
from modelyard.core.events import Event
from modelyard.core.settings import BatchingSettings
from modelyard.core.types import Servable
from modelyard.telemetry.logs import emit

RETURN_AFTER_RUNS = 64
"""Fast runs in a row before a version that left the loop comes back: one slow run (a page fault, a busy machine)
must not cost a fast model its place for ever."""


FEW_ROWS = 8
"""A run over the bound with more rows than this makes the next batches smaller; with so few, the model is too slow
for the loop, whatever the batch (docs/decisions/0010-runs-on-the-loop.md)."""


class Lane:
    """The queue of one version. Owned by the loop thread alone."""

    def __init__(self, servable: Servable, settings: BatchingSettings) -> None:
        max_rows, max_loop_run_us = settings.max_rows, settings.max_loop_run_us
        self.servable = servable
        self.waiting: deque[Job] = deque()
        self.running = False
        self.waited = False
        """Whether jobs may have waited for longer than a turn, so that some of them may be over."""
        self.used_s = perf_counter()
        self.in_loop = servable.profile.in_loop
        self._batched = servable.profile.batched
        self._may_return = servable.profile.in_loop
        self._max_rows = max_rows
        self._loop_rows = max_rows
        self._max_loop_run_us = max_loop_run_us
        self.short_s = max_loop_run_us / 1e6
        """A run on the loop that took no longer on the wall needs no meter."""
        self._fast_runs = 0
        self._told = False
        self._max_queue = settings.max_queue
        self._backlog = Backlog(servable.profile, max_rows, settings.max_wait_ms / 1e3)
        self._sent_s = 0.0
        self._fixed = all(all(size >= 0 for size in spec.shape[1:]) for spec in servable.signature.inputs)

    def take(self) -> tuple[list[Job], list[Job]]:
        """The next batch, at most `max_rows` rows unless one job alone is larger, and the jobs that are over."""
        waiting = self.waiting
        most = self._loop_rows if self.in_loop else self._max_rows
        if self._fixed and self._batched and len(waiting) <= most and not self.waited:
            batch = list(waiting)
            if all(job.request.rows == 1 for job in batch):  # as usual: all of this turn, a row each
                waiting.clear()
                return batch, []
        return self._take_one_by_one(most)

    def _take_one_by_one(self, most: int) -> tuple[list[Job], list[Job]]:
        batch: list[Job] = []
        over: list[Job] = []
        rows = 0
        waiting = self.waiting
        while waiting:
            job = waiting[0]
            if job.over:
                over.append(waiting.popleft())
                continue
            if batch and (rows + job.request.rows > most or not self._joins(batch[0], job)):
                break
            batch.append(waiting.popleft())
            rows += job.request.rows
            if not self._batched or job.request.rows == 0:
                break
        self.waited = bool(waiting)
        return batch, over

    def shed(self) -> list[Job]:
        """The jobs at the head of the queue that are over: behind a run that never ends they would pile up."""
        over: list[Job] = []
        while self.waiting and self.waiting[0].over:
            over.append(self.waiting.popleft())
        self.recount()
        return over

    def refusal(self, job: Job) -> OverloadError | None:
        """Off the loop: why the job may not wait here. If it may, it counts from now on."""
        rows = max(1, job.request.rows)
        backlog = self._backlog
        if len(self.waiting) < self._max_queue and backlog.has_room(rows):
            backlog.waiting += rows
            return None
        return OverloadError(
            "overloaded",
            "Too many requests wait for this version; nothing was done.",
            retry_after_s=max(1.0, backlog.expected_s(backlog.waiting + backlog.running)),
            field="batching.max_wait_ms",
            model=self.servable.model,
            version=self.servable.version,
        )

    def sent(self, batch: Sequence[Job]) -> None:
        """A batch leaves for the executor; whatever else waits is counted anew, since some may be over."""
        self.running = self.waited = True
        self._sent_s = perf_counter()
        self._backlog.running = sum(max(1, job.request.rows) for job in batch)
        self.recount()

    def recount(self) -> None:
        """What waits is what is in the queue now."""
        self._backlog.waiting = sum(max(1, job.request.rows) for job in self.waiting)

    def returned(self) -> None:
        """The batch that was sent is back."""
        self.running = False
        self._backlog.note_run(perf_counter() - self._sent_s, self._backlog.running)
        self._backlog.running = 0

    def _joins(self, first: Job, job: Job) -> bool:
        if job.request.rows == 0:
            return False
        if self._fixed:
            return True
        mine, theirs = first.request.inputs, job.request.inputs
        return mine.keys() == theirs.keys() and all(mine[name].shape[1:] == theirs[name].shape[1:] for name in mine)

    def note_run(self, run_s: float, ended_s: float, rows: int) -> None:
        """Learns from a run. Over the bound: the next batches have half its rows, or, if it had few, the version
        leaves the loop at once. After enough fast runs batches grow again, and the version returns."""
        self.used_s = ended_s
        run_us = run_s * 1e6
        if not self.in_loop and rows > FEW_ROWS:
            run_us *= FEW_ROWS / rows  # batches are large off the loop; would a small one have fitted?
        if run_us > self._max_loop_run_us:
            self._fast_runs = 0
            if self.in_loop and rows > FEW_ROWS:
                self._loop_rows = rows // 2
            elif self.in_loop:
                self._leave(run_us)
            return
        self._fast_runs += 1
        if self._fast_runs < RETURN_AFTER_RUNS:
            return
        self._fast_runs = 0
        if self.in_loop:
            self._loop_rows = min(self._max_rows, 2 * self._loop_rows)
        elif self._may_return:
            self.in_loop = True
            self._loop_rows = FEW_ROWS

    def _leave(self, run_us: float) -> None:
        self.in_loop = False
        self.recount()
        if not self._told:
            self._told = True  # once: on a busy machine a fast model goes and comes
            emit(
                Event.MODEL_MOVED_OFF_LOOP,
                model=self.servable.model,
                version=self.servable.version,
                run_us=round(run_us, 1),
            )
