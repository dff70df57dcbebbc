"""What each step of a version's load took (PERF-3): written down while it goes on, kept for each version.

`wait` is for a place among the parallel loads, `resolve` finds the files, `download` fetches them where they are not
here, `verify` hashes them, `parse` is the library's own load, `warm_up` the runs of the load check, and `first_answer`
the time from there to the first good answer. Steps may overlap, and come twice where a load is tried twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from modelyard.core.clock import Clock
from modelyard.models.ports import Key

FIRST_ANSWER = "first_answer"
MOST_TIMELINES = 256
"""Versions whose newest load is remembered; the oldest are forgotten first."""
MOST_STEPS = 24
LONG_S = 1.0
"""A load that takes longer is told step by step, a shorter one at its beginning and its end."""


class Step(msgspec.Struct, frozen=True):
    """One step. `start_s` counts from the moment at which the load was asked for; `size_bytes` where bytes were read
    or fetched."""

    name: str
    start_s: float
    duration_s: float
    size_bytes: int | None = None


class Timeline(msgspec.Struct, frozen=True):
    """The newest load of a version in one process. `begun_at` is UNIX seconds; `total_s` ends with the warm-up, None
    while it goes on; `code` and `reason` say why it failed."""

    model: str
    version: str
    begun_at: float
    state: Literal["loading", "loaded", "failed"] = "loading"
    steps: tuple[Step, ...] = ()
    total_s: float | None = None
    code: str = ""
    reason: str = ""


class Watch:
    """Writes down one load. `step` may be used by several threads."""

    def __init__(self, log: LoadLog, key: Key, clock: Clock) -> None:
        self._log = log
        self._key = key
        self._clock = clock
        self._begun_s = clock.monotonic()
        self._timeline = Timeline(*key, clock.now())
        self._lock = threading.Lock()

    def started(self) -> None:
        """It has a thread of its own from now on."""
        self._add(Step("wait", 0.0, self._since_s()))
        self._log.put(self._timeline)

    @contextmanager
    def step(self, name: str, size_bytes: int | None = None) -> Iterator[None]:
        """What is done inside is a step, also if it fails."""
        start_s = self._since_s()
        try:
            yield
        finally:
            self._add(Step(name, start_s, self._since_s() - start_s, size_bytes))
            if self._since_s() > LONG_S:
                self._log.put(self._timeline)

    def ended(self, code: str = "", reason: str = "") -> None:
        """It is loaded, or failed."""
        state: Literal["loaded", "failed"] = "failed" if code else "loaded"
        self._timeline = msgspec.structs.replace(
            self._timeline, state=state, total_s=self._since_s(), code=code, reason=reason
        )
        self._log.put(self._timeline)

    def _since_s(self) -> float:
        return self._clock.monotonic() - self._begun_s

    def _add(self, step: Step) -> None:
        with self._lock:
            steps = (*self._timeline.steps, step)[-MOST_STEPS:]
            self._timeline = msgspec.structs.replace(self._timeline, steps=steps)


class LoadLog:
    """The newest timeline of each version, at most MOST_TIMELINES; `told` is given all of them after each change."""

    def __init__(self, clock: Clock, told: Callable[[tuple[Timeline, ...]], None] = lambda timelines: None) -> None:
        self._clock = clock
        self._told = told
        self._kept: dict[Key, Timeline] = {}
        self._unanswered: set[Key] = set()
        self._lock = threading.Lock()

    def watch(self, key: Key) -> Watch:
        """Begins to write down a load that was just asked for."""
        return Watch(self, key, self._clock)

    def put(self, timeline: Timeline) -> None:
        """Keeps a timeline in place of the version's older one."""
        key = timeline.model, timeline.version
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = timeline
            for oldest in list(self._kept)[:-MOST_TIMELINES]:
                del self._kept[oldest]
            (self._unanswered.add if timeline.state == "loaded" else self._unanswered.discard)(key)
            self._told(tuple(self._kept.values()))

    def timelines(self) -> tuple[Timeline, ...]:
        """All that are kept, the newest last."""
        with self._lock:
            return tuple(self._kept.values())

    def note_answers(self, answered_at: Callable[[Key], float]) -> None:
        """Notes first answers; `answered_at` says when a version last answered here (UNIX seconds; 0.0: never). Asked
        now and then, so under load a first answer is known as well as that."""
        for key in tuple(self._unanswered):
            timeline = self._kept.get(key)
            if timeline is None or timeline.total_s is None:
                self._unanswered.discard(key)
            elif (at := answered_at(key)) >= timeline.begun_at + timeline.total_s - 0.001 and at > 0:
                after_s = max(0.0, at - timeline.begun_at - timeline.total_s)
                step = Step(FIRST_ANSWER, timeline.total_s, after_s)
                self.put(msgspec.structs.replace(timeline, steps=(*timeline.steps, step)))
                self._unanswered.discard(key)


def rate_mb_s(step: Step) -> float | None:
    """Megabytes (10^6 bytes) a second of a step that moved bytes; None of one that moved none."""
    if step.size_bytes is None or step.duration_s <= 0:
        return None
    return step.size_bytes / step.duration_s / 1e6
