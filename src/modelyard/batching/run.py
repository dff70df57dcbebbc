"""Run jobs together, or one by one where together fails (promise P3)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import numpy as np

from modelyard.batching.meter import read_meter, run_seconds
from modelyard.batching.ports import Job
from modelyard.core.errors import InternalError, ModelError, ModelyardError, OverloadError
from modelyard.core.types import Tensors

Outcome = tuple[Tensors | ModelyardError, float, float]
"""What one job got, and when its run started and ended (perf_counter seconds)."""


class Ran:
    """What one run gave: `joint` are the outputs of all jobs' rows in order if they ran as one. `run_s` are the
    seconds that the runs took of this thread (meter.py)."""

    __slots__ = ("_alone", "_rows", "ended_s", "joint", "run_s", "started_s")

    def __init__(self, started_s: float, ended_s: float, joint: Tensors | None, rows: Sequence[int]) -> None:
        self.started_s = started_s
        self.ended_s = ended_s
        self.joint = joint
        self.run_s = ended_s - started_s
        self._rows = rows
        self._alone: list[Outcome] = []

    @classmethod
    def alone(cls, outcomes: list[Outcome]) -> Ran:
        """Jobs that ran one by one."""
        ran = cls(outcomes[0][1], outcomes[-1][2], None, ())
        ran._alone = outcomes
        return ran

    def outcomes(self) -> list[Outcome]:
        """One outcome per job, in order."""
        if self.joint is None or self._alone:
            return self._alone
        parts: list[Outcome] = []
        at = 0
        for rows in self._rows:
            own = {name: array[at : at + rows] for name, array in self.joint.items()}
            parts.append((own, self.started_s, self.ended_s))
            at += rows
        return parts


def run_metered(jobs: Sequence[Job], unmetered_s: float = 0.0) -> Ran:
    """`run_jobs`, its seconds metered, unless they are below `unmetered_s` on the wall already. In whichever thread
    calls it."""
    before = read_meter()
    ran = run_jobs(jobs)
    if ran.run_s > unmetered_s:
        ran.run_s = run_seconds(before, read_meter(), ran.run_s)
    return ran


def run_jobs(jobs: Sequence[Job]) -> Ran:
    """Runs jobs that share a version and non-batch dimensions.

    Several jobs run as one batch; if that fails, each runs alone, so that a bad neighbour hurts nobody. A model that
    has no room just now is no neighbour's fault: it is not asked again for each. Never raises; touches no job, so it
    may run in a thread.
    """
    if len(jobs) > 1:
        with suppress(Exception):
            return _run_together(jobs)
    outcomes = [_run_alone(job) for job in jobs]
    ran = Ran.alone(outcomes)
    if len(jobs) == 1 and type(outcomes[0][0]) is dict:
        ran.joint = outcomes[0][0]  # one job's rows are all rows
    return ran


def _run_alone(job: Job) -> Outcome:
    started = perf_counter()
    try:
        result: Tensors | ModelyardError = job.servable.loaded.run(job.request.inputs, ())
    except ModelyardError as error:
        result = error
    except Exception as error:
        result = ModelError(
            "model_failed", "The model failed on this input.", model=job.servable.model, reason=type(error).__name__
        )
    return result, started, perf_counter()


def _run_together(jobs: Sequence[Job]) -> Ran:
    started = perf_counter()
    requests = [job.request for job in jobs]
    inputs = {name: np.concatenate([request.inputs[name] for request in requests]) for name in requests[0].inputs}
    try:
        outputs = jobs[0].servable.loaded.run(inputs, ())
    except OverloadError as error:
        return Ran.alone([(error, started, perf_counter())] * len(jobs))
    counts = [request.rows for request in requests]
    rows = sum(counts)
    if any(array.ndim == 0 or len(array) != rows for array in outputs.values()):
        raise InternalError("internal", "A batch came back with another number of rows.")
    return Ran(started, perf_counter(), outputs, counts)
