"""Run jobs together, or one by one where together fails (promise P3)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from modelyard.batching.meter import read_meter, run_seconds
from modelyard.batching.ports import Job
from modelyard.core.errors import InternalError, ModelError, ModelyardError
from modelyard.core.types import Array, Tensors

Outcome = tuple[Tensors | ModelyardError, float, float]
"""What one job got, and when its run started and ended (perf_counter seconds)."""


def run_metered(jobs: Sequence[Job]) -> tuple[list[Outcome], float]:
    """`run_jobs`, and how many seconds the runs took of this thread (meter.py). In whichever thread calls it."""
    before = read_meter()
    outcomes = run_jobs(jobs)
    return outcomes, run_seconds(before, read_meter(), outcomes[-1][2] - outcomes[0][1])


def run_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """One outcome per job, in order. All jobs share a version and non-batch dimensions.

    Several jobs run as one batch; if that fails, each runs alone, so that a bad neighbour hurts nobody. Never
    raises; touches no job, so it may run in a thread.
    """
    if len(jobs) == 1:
        return [_run_alone(jobs[0])]
    try:
        started = perf_counter()
        parts = _run_together(jobs)
        ended = perf_counter()
    except Exception:
        return [_run_alone(job) for job in jobs]
    return [(part, started, ended) for part in parts]


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


def _run_together(jobs: Sequence[Job]) -> list[dict[str, Array]]:
    servable = jobs[0].servable
    inputs = {name: np.concatenate([job.request.inputs[name] for job in jobs]) for name in jobs[0].request.inputs}
    outputs = servable.loaded.run(inputs, ())
    rows = sum(job.request.rows for job in jobs)
    if any(array.ndim == 0 or len(array) != rows for array in outputs.values()):
        raise InternalError("internal", "A batch came back with another number of rows.")
    parts = []
    at = 0
    for job in jobs:
        end = at + job.request.rows
        parts.append({name: array[at:end] for name, array in outputs.items()})
        at = end
    return parts
