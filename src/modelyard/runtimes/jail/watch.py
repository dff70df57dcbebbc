"""Processor time: a jailed process may use it for its runs, and a little beside them.

A thread reads the clocks. A resource limit that is renewed with every run would need CAP_SYS_RESOURCE over a process of
another user, which containers do not give.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from weakref import WeakSet

TICK_S = 1.0
SPARE_CPU_S = 10.0
"""Beside its runs a model may use this many processor seconds: what its threads do after an answer."""
FORGIVEN_SHARE = 0.02
"""So much of a core is nobody's business."""


def cpu_seconds(pid: int) -> float:
    """What another process has used of the processors so far (clock_getcpuclockid, POSIX). OSError."""
    return time.clock_gettime((~pid << 3) | 2)


class Meter:
    """One process. `begin` and `end` are called around each run; `on_overrun` once, if it uses too much between."""

    def __init__(self, pid: int, threads: int, on_overrun: Callable[[], None]) -> None:
        self._pid = pid
        self._threads = max(1, threads)
        self._on_overrun = on_overrun
        self._lock = threading.Lock()
        self._busy_s = 0.0
        self._since_s = 0.0
        self._seen_cpu_s = cpu_seconds(pid)
        self._seen_s = time.monotonic()
        self._surplus_s = 0.0

    def begin(self) -> None:
        """A run starts."""
        self._since_s = time.monotonic()

    def end(self) -> None:
        """It is over."""
        with self._lock:
            self._busy_s += time.monotonic() - self._since_s
            self._since_s = 0.0

    def look(self, now_s: float, used_s: float) -> None:
        """What was used since the last look, less what runs may use, is added up."""
        with self._lock:
            busy_s, self._busy_s = self._busy_s, 0.0
            if self._since_s:
                busy_s, self._since_s = busy_s + now_s - self._since_s, now_s
        allowed_s = busy_s * self._threads + (now_s - self._seen_s) * FORGIVEN_SHARE
        self._surplus_s = max(0.0, self._surplus_s + used_s - self._seen_cpu_s - allowed_s)
        self._seen_cpu_s, self._seen_s = used_s, now_s
        if self._surplus_s > SPARE_CPU_S:
            self._surplus_s = 0.0
            self._on_overrun()

    def read(self) -> float:
        """Its clock now. OSError once it is gone."""
        return cpu_seconds(self._pid)


_meters: WeakSet[Meter] = WeakSet()
_started = threading.Lock()
_watcher: threading.Thread | None = None


def watch(meter: Meter) -> None:
    """Looks at it every second, as long as somebody holds it."""
    global _watcher
    _meters.add(meter)
    with _started:
        if _watcher is None or not _watcher.is_alive():  # a forked process has none
            _watcher = threading.Thread(target=_look_for_ever, name="jail-watch", daemon=True)
            _watcher.start()


def _look_for_ever() -> None:
    while True:
        time.sleep(TICK_S)
        for meter in list(_meters):
            try:
                meter.look(time.monotonic(), meter.read())
            except OSError:
                _meters.discard(meter)
