"""One jailed process as its parent sees it: started, spoken with under deadlines, killed, and asked how it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ModelError, PublishError
from modelyard.runtimes.child import clean_environment
from modelyard.runtimes.jail.watch import Meter, watch
from modelyard.runtimes.remote.area import Area
from modelyard.runtimes.remote.process import Bounds, RemoteProcess, garbled
from modelyard.runtimes.remote.wire import Confined

MODULE = "modelyard.runtimes.jail.inside"
EXIT_S = 0.5
"""How long a process that closed its channel may take to end; then it is said to have hung up."""
KILLED_S = 10.0


class JailBounds(Bounds, frozen=True):
    """What a jail may use."""

    @property
    def address_bytes(self) -> int:
        """The bound of the address space: the shared memory is mapped beside what the model may use."""
        return self.memory_bytes + 2 * self.tensor_bytes


class What(msgspec.Struct, frozen=True):
    """Which files are run, and how. `options` is what the format's adapter needs, as JSON has it."""

    folder: Path
    entry: str
    format: str
    options: Mapping[str, Any] = {}


class JailProcess(RemoteProcess):
    """A started process. One thread at a time may speak with it. Every error but a model's own has killed it."""

    def __init__(self, what: What, bounds: JailBounds) -> None:
        self._bounds = bounds
        self._overran = ""
        ours, theirs = socket.socketpair()
        try:
            area = Area("modelyard-jail", bounds.tensor_bytes)
            try:
                self._child = start_process(what, bounds, theirs.fileno(), area.descriptor)
            except BaseException:
                area.close()
                raise
            area.handed_over()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        super().__init__(ours, area)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._child.pid

    def await_confined(self) -> None:
        """Returns once every protection is applied and every trial held; PublishError("jail_unavailable") names those
        that did not, PublishError("publish_timeout") if nothing came in time."""
        try:
            found = self.protections()
        except ModelError as error:
            raise PublishError(
                "jail_unavailable", f"The jail did not start: {error.message}", field="models.unsafe_formats"
            ) from None
        broken = {name: why for name, why in found.items() if why}
        if broken:
            self.kill()
            raise unavailable(broken)

    def protections(self) -> dict[str, str]:
        """Each protection by its name, with "" if it holds, else why it does not; asked once, before anything else.
        ModelError as `hear`."""
        said = self.hear(self._bounds.load_s)
        if not isinstance(said, Confined):
            raise self.end(garbled("something before the outcome of its trials"))
        return {**said.trials, **said.failed, **self._unwatched()}

    def ask(self, order: msgspec.Struct, timeout_s: float) -> msgspec.Struct:
        """As every process is asked; the time counts as a run's."""
        self._meter.begin()
        try:
            return super().ask(order, timeout_s)
        finally:
            self._meter.end()

    def _unwatched(self) -> dict[str, str]:
        """Why its processor time or its life are not in our hands; empty if they are."""
        try:
            self._meter = Meter(self.pid, self._bounds.threads, self._overrun)
            os.kill(self.pid, 0)
        except OSError as error:
            return {"cpu": f"the server may not watch and end the process ({error.strerror})"}
        watch(self._meter)
        return {}

    def _overrun(self, what: str) -> None:
        self._overran = what
        with suppress(OSError):
            self._child.kill()  # not by its number, which may be another's once it is reaped

    def _ended(self) -> ModelError:
        """ModelError: model_exited, model_crashed, model_hung_up, or model_timeout for what it did beside its runs."""
        try:
            status = self._child.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return self.end(ModelError("model_hung_up", "The model's process closed its channel; it was ended."))
        self.kill()
        if self._overran:
            return ModelError(
                "model_timeout", f"The model {self._overran}; its process was ended.",
                field="models.max_run_s",
            )  # fmt: skip
        if status >= 0:
            return ModelError("model_exited", f"The model ended its process (status {status}).", status=status)
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return ModelError("model_crashed", f"The model's process was ended by {name}.", signal=name)

    def kill(self) -> None:
        """SIGKILL, and waits for the end. A second call does nothing."""
        if self._child.poll() is None:
            with suppress(ProcessLookupError):
                self._child.kill()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(KILLED_S)
        self._let_go()

    def leave(self) -> None:
        """Nobody else has it."""
        self.kill()


def command(orders: str) -> list[str]:
    """What is started, with its orders."""
    return [sys.executable, "-P", "-m", MODULE, orders]


def start_process(what: What, bounds: JailBounds, channel: int, area: int) -> subprocess.Popen[bytes]:
    """Starts the process, from a thread that lives as long as this process: it is killed when that thread ends."""
    orders = {
        "folder": str(what.folder.resolve()),
        "entry": what.entry,
        "format": what.format,
        "options": what.options,
        "channel": channel,
        "area": area,
        "area_bytes": bounds.tensor_bytes,
        "memory_bytes": bounds.address_bytes,
        "parent": os.getpid(),
    }
    arguments = command(json.dumps(orders))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(bounds.threads),
            pass_fds=(channel, area),
            start_new_session=True,
        )

    return _starter(os.getpid()).submit(start).result()


@lru_cache(maxsize=1)
def _starter(pid: int) -> ThreadPoolExecutor:
    """One thread for each process of ours; a forked one has threads of its own."""
    return ThreadPoolExecutor(1, "jail")


def _environment(threads: int) -> dict[str, str]:
    """JOBLIB_MULTIPROCESSING=0: there are no processes to be had."""
    return {**clean_environment(threads), "JOBLIB_MULTIPROCESSING": "0"}


def unavailable(broken: Mapping[str, str]) -> PublishError:
    """The jail does not hold here; names every protection that does not."""
    said = "; ".join(f"`{name}`: {why}" for name, why in broken.items())
    return PublishError(
        "jail_unavailable",
        f"This machine cannot confine models whose files are programs, so they are refused. Not active: {said[:600]}.",
        field="models.unsafe_formats",
        expected="every protection active (`modelyard doctor` lists them)",
        got=sorted(broken),
    )
