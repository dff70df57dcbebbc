"""Was a run slow, or was the machine busy? What the kernel says of the thread that ran it."""

from __future__ import annotations

from resource import RUSAGE_THREAD, getrusage
from time import thread_time

Reading = tuple[float, int]


def read_meter() -> Reading:
    """CPU seconds of the calling thread so far, and how often it gave the core away by itself.

    The seconds come from CLOCK_THREAD_CPUTIME_ID: getrusage(2) counts ticks of milliseconds on some kernels.
    """
    return thread_time(), getrusage(RUSAGE_THREAD).ru_nvcsw


def run_seconds(before: Reading, after: Reading, wall_s: float) -> float:
    """How long a run between two readings of one thread really took.

    A thread that never waited, yet took longer on the wall than on the CPU, was put aside for another process: its
    model is not slower for that, and would be put aside in an executor too. A thread that waited (a lock, a disk, other
    threads of its library) took the time on the wall.
    """
    return wall_s if after[1] != before[1] else min(wall_s, after[0] - before[0])
