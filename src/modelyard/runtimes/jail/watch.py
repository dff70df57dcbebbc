"""Processor time and threads: a jailed process may use the one for its runs, and a little beside them, and have some
of the others.

A thread reads the clocks. A resource limit that is renewed with every run would need CAP_SYS_RESOURCE over a process of
another user, which containers do not give.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

TICK_S = 1.0
SPARE_CPU_S = 10.0
"""Beside its runs a model may use this many processor seconds: what its threads do after an answer."""
FORGIVEN_SHARE = 0.02
"""So much of a core is nobody's business."""
MAX_THREADS = 1024
"""More than a library starts on a large machine; others of the same user could start none."""
SPINS, CROWDS = "used the processor beside its runs", f"started more than {MAX_THREADS} threads"


def cpu_seconds(pid: int) -> float:
    """What another process has used of the processors so far (clock_getcpuclockid, POSIX). OSError."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_count(pid: int) -> int:
    """How many threads another process has now; 0 where that cannot be seen."""
    try:
        return Path(f"/proc/{pid}/task").stat().st_nlink - 2
    except OSError:
        return 0


class Meter:
    """One process. `begin` and `end` are called around each run; `on_overrun` once, with what it did, if it uses too
    much between."""

    def __init__(self, pid: int, threads: int, on_overrun: Callable[[str], None]) -> None:
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

    def look(self, now_s: float, used_s: float, threads: int = 0) -> None:
        """What was used since the last look, less what runs may use, is added up; `threads` it has now."""
        with self._lock:
            busy_s, self._busy_s = self._busy_s, 0.0
            if self._since_s:
                busy_s, self._since_s = busy_s + now_s - self._since_s, now_s
        allowed_s = busy_s * self._threads + (now_s - self._seen_s) * FORGIVEN_SHARE
        self._surplus_s = max(0.0, self._surplus_s + used_s - self._seen_cpu_s - allowed_s)
        self._seen_cpu_s, self._seen_s = used_s, now_s
        if self._surplus_s > SPARE_CPU_S:
            self._surplus_s = 0.0
            self._on_overrun(SPINS)
        if threads > MAX_THREADS:
            self._on_overrun(CROWDS)

    def read(self) -> tuple[float, int]:
        """Its clock and its threads now. OSError once it is gone."""
        return cpu_seconds(self._pid), thread_count(self._pid)


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
                meter.look(time.monotonic(), *meter.read())
            except OSError:
                _meters.discard(meter)
