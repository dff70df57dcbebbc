"""How the server's other processes start: the first ones forked, later ones as fresh interpreters.

The first workers and the drain are forked from the parent, after it has imported what they need and before it has a
thread: they start without importing anything again, and share the memory of all code with it. Whatever replaces one of
them later (after a death, or on SIGUSR2 with a new release installed) is a fresh interpreter, so that nothing old
survives a reload. docs/decisions/0016-first-processes-are-forked.md has the reasons and the figures.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from setproctitle import setproctitle

from modelyard.app.child import be_drain, be_worker
from modelyard.core.events import Event
from modelyard.core.settings import REVEALED, Settings
from modelyard.http.processes.supervisor import Process
from modelyard.telemetry.logs import emit

KEPT_FDS = (0, 1, 2)


class Inherited(NamedTuple):
    """Descriptors that every worker has from the parent: the socket, and the shared memory of limits and quotas."""

    listener_fd: int
    counter_fd: int
    quota_fd: int


class Spawner:
    """Starts workers and the drain. `libraries` are modules that the models will need, imported before the fork."""

    def __init__(
        self,
        settings: Settings,
        threads: Mapping[str, str],
        inherited: Inherited,
        libraries: Sequence[str] = (),
    ) -> None:
        # The administrator's key stays here: no worker needs it.
        self._settings = settings.model_dump_json(exclude={"auth"}, context=REVEALED).encode()
        self._environment = {**os.environ, **threads}
        self._environment.pop("MODELYARD_AUTH__ADMIN_KEY", None)
        self._environment.pop("MODELYARD_CONFIG", None)
        self._inherited = inherited
        self._forks = settings.start_method == "fork" and prepare_fork(threads, libraries)

    def worker(self, slot: int, control_fd: int, successor: bool) -> Process:
        """One HTTP worker."""
        listener, counter, quota = self._inherited
        fds = (listener, control_fd, counter, quota)
        arguments = [str(handle) for handle in (slot, *fds, int(successor))]
        if self._may_fork(successor):
            return self._fork(be_worker, arguments, fds, f"modelyard.entry.worker {slot}")
        return self._start("modelyard.entry.worker", arguments, fds)

    def drain(self, successor: bool) -> Process:
        """The drain."""
        parent = str(os.getpid())
        if self._may_fork(successor):
            return self._fork(be_drain, [parent], (), "modelyard.entry.drain")
        return self._start("modelyard.entry.drain", [parent], ())

    def _may_fork(self, successor: bool) -> bool:
        return self._forks and not successor and threading.active_count() == 1

    def _fork(
        self, be: Callable[[bytes, list[str]], None], arguments: list[str], fds: Sequence[int], title: str
    ) -> Process:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return Forked(pid)
        status = 1
        try:
            _become_child(fds)
            setproctitle(title)  # as a fresh interpreter's command line says it
            os.environ.clear()
            os.environ.update(self._environment)
            be(self._settings, arguments)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            emit(Event.CHILD_FAILED, "error", process=title, exc_info=True)
        finally:
            # Nothing of the parent's unwinds here: no `finally` of its, no buffers, no exit handlers.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _start(self, module: str, arguments: Sequence[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            env=self._environment,
            pass_fds=fds,
            process_group=0,
        )
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(self._settings)
        return process


class Forked:
    """A forked child, with what the supervisor asks of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, if it has ended: the exit status, or minus the signal."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Its status; subprocess.TimeoutExpired after `timeout` seconds."""
        status = self.poll()
        if status is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(["modelyard"], timeout or 0.0)
            finally:
                os.close(descriptor)
            status = self._reap(0)
        assert status is not None
        return status

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self.returncode = 0
                return 0
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def prepare_fork(threads: Mapping[str, str], libraries: Sequence[str]) -> bool:
    """Imports the models' libraries with the threads that they may have, and sets all that was imported aside from the
    collector, so that its pages stay shared. Whether a fork is safe: not where an import has started a thread."""
    before = dict(os.environ)
    os.environ.update(threads)
    try:
        for name in libraries:
            importlib.import_module(name)
    finally:
        for name in threads:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in threads if name in before})
    gc.collect()
    gc.freeze()
    return hasattr(os, "fork") and hasattr(os, "pidfd_open") and threading.active_count() == 1


def _become_child(fds: Sequence[int]) -> None:
    """A process group of its own, no handler and no descriptor of the parent's but those that it was given."""
    os.setpgid(0, 0)  # no session: with autogrouping, sessions share a core evenly, whatever their priorities
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    last = -1
    for descriptor in (*sorted({*KEPT_FDS, *fds}), os.sysconf("SC_OPEN_MAX")):
        if descriptor > last + 1:  # an empty range at 0 would close everything (close_range's last is unsigned)
            os.closerange(last + 1, descriptor)
        last = descriptor
    for descriptor in fds:
        os.set_inheritable(descriptor, True)
