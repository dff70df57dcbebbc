"""One jailed process as its parent sees it: started, spoken with under deadlines, killed, and asked how it ended."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import ModelError, PublishError
from modelyard.runtimes.child import KEPT
from modelyard.runtimes.jail.watch import Meter, watch
from modelyard.runtimes.jail.wire import LENGTH, MAX_FRAME_BYTES, Confined, Order, Reply, frame
from modelyard.runtimes.threads import LIBRARIES

MODULE = "modelyard.runtimes.jail.inside"
READ_BYTES = 65_536
EXIT_S = 0.5
"""How long a process that closed its channel may take to end; then it is said to have hung up."""
KILLED_S = 10.0
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Nobody can cut the memory under the other side's feet."""


class JailBounds(msgspec.Struct, frozen=True):
    """What a jail may use. `tensor_bytes`: inputs of one run, and outputs likewise; `load_s`: from the start of the
    process to the loaded model."""

    memory_bytes: int = 2 * 1024**3
    tensor_bytes: int = 128 * 1024**2
    run_s: float = 60.0
    load_s: float = 120.0
    threads: int = 1
    deaths: int = 5
    within_s: float = 60.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> JailBounds:
        """Those of a runtime's options: `jail` (`models.report.jail_bounds`), and `threads` beside it."""
        return cls(**{**options.get("jail", {}), "threads": int(options.get("threads", 1))})

    @property
    def address_bytes(self) -> int:
        """The bound of the address space: the shared memory is mapped beside what the model may use."""
        return self.memory_bytes + 2 * self.tensor_bytes


class What(msgspec.Struct, frozen=True):
    """Which files are run, and how."""

    folder: Path
    entry: str
    format: str


class JailProcess:
    """A started process. One thread at a time may speak with it. Every error but a model's own has killed it."""

    def __init__(self, what: What, bounds: JailBounds) -> None:
        self._bounds = bounds
        self._overran = False
        self._socket, theirs = socket.socketpair()
        area = os.memfd_create("modelyard-jail", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(area, 2 * bounds.tensor_bytes)
            fcntl.fcntl(area, fcntl.F_ADD_SEALS, SEALS)
            self._map = mmap.mmap(area, 2 * bounds.tensor_bytes)
            self._child = start_process(what, bounds, theirs.fileno(), area)
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
            os.close(area)
        memory = memoryview(self._map)
        self.given, self.answered = memory[: bounds.tensor_bytes], memory[bounds.tensor_bytes :]
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

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

    def ask(self, order: Order, timeout_s: float) -> Reply:
        """Sends an order, and the answer to it; ModelError as `hear`, and ("reply_repeated") if something came that
        nobody had asked for."""
        self._check_silent()
        self._meter.begin()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # what is read next says how it ended
                self._send(frame(order), timeout_s)
            reply = self.hear(timeout_s)
        finally:
            self._meter.end()
        self._check_silent()
        return reply

    def _unwatched(self) -> dict[str, str]:
        """Why its processor time or its life are not in our hands; empty if they are."""
        try:
            self._meter = Meter(self.pid, self._bounds.threads, self._overrun)
            os.kill(self.pid, 0)
        except OSError as error:
            return {"cpu": f"the server may not watch and end the process ({error.strerror})"}
        watch(self._meter)
        return {}

    def _overrun(self) -> None:
        self._overran = True
        with suppress(OSError):
            self._child.kill()  # not by its number, which may be another's once it is reaped

    def hear(self, timeout_s: float) -> Reply:
        """One frame. ModelError: model_exited, model_crashed, model_hung_up, model_timeout, reply_garbled; the process
        is dead then."""
        until_s = time.monotonic() + timeout_s
        size = LENGTH.unpack(self._read(LENGTH.size, until_s, timeout_s))[0]
        if size > MAX_FRAME_BYTES:
            raise self.end(garbled(f"a frame of {size} bytes"))
        body = self._read(size, until_s, timeout_s)
        try:
            reply: Reply = msgspec.msgpack.decode(body, type=Reply)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self.end(garbled("a frame that is no message")) from None
        return reply

    def _check_silent(self) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            if self._socket.recv(1, socket.MSG_PEEK):
                raise self.end(
                    ModelError("reply_repeated", "The model's process said more than one answer; it was ended.")
                )

    def _send(self, data: bytes, timeout_s: float) -> None:
        """Orders are small; a process that does not read them is stopped, or will not answer either."""
        view = memoryview(data)
        until_s = time.monotonic() + timeout_s
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise self.end(too_slow(timeout_s)) from None
                select.select([], [self._socket], [], 0.1)

    def _read(self, size: int, until_s: float, timeout_s: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._socket.recv(min(size - len(parts), READ_BYTES))
            except BlockingIOError:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise self.end(too_slow(timeout_s)) from None
                self._poll.poll(left_s * 1000 + 1)
                continue
            except ConnectionResetError:
                part = b""
            if not part:
                raise self._ended()
            parts += part
        return bytes(parts)

    def _ended(self) -> ModelError:
        """The channel is closed: how did it end?"""
        try:
            status = self._child.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return self.end(ModelError("model_hung_up", "The model's process closed its channel; it was ended."))
        self.kill()
        if self._overran:
            return ModelError(
                "model_timeout", "The model used the processor beside its runs; its process was ended.",
                field="models.max_run_s",
            )  # fmt: skip
        if status >= 0:
            return ModelError("model_exited", f"The model ended its process (status {status}).", status=status)
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return ModelError("model_crashed", f"The model's process was ended by {name}.", signal=name)

    def end(self, error: ModelError) -> ModelError:
        """Kills the process for this reason."""
        self.kill()
        return error

    def kill(self) -> None:
        """SIGKILL, and waits for the end. A second call does nothing."""
        if self._child.poll() is None:
            with suppress(ProcessLookupError):
                self._child.kill()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(KILLED_S)
        self._socket.close()
        # At once, not when the garbage collector comes by: it is as large as models.jail_tensor_bytes twice.
        self.given.release()
        self.answered.release()
        with suppress(BufferError):  # an array that looks into it is on its way out
            self._map.close()

    def give_back(self, used_bytes: int) -> None:
        """Frees the pages of the shared memory after a large run."""
        if used_bytes > self._bounds.tensor_bytes // 16:
            with suppress(OSError):
                self._map.madvise(mmap.MADV_REMOVE)


def command(orders: str) -> list[str]:
    """What is started, with its orders."""
    return [sys.executable, "-P", "-m", MODULE, orders]


def start_process(what: What, bounds: JailBounds, channel: int, area: int) -> subprocess.Popen[bytes]:
    """Starts the process, from a thread that lives as long as this process: it is killed when that thread ends."""
    orders = {
        "folder": str(what.folder.resolve()),
        "entry": what.entry,
        "format": what.format,
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
    """As little as Python needs; JOBLIB_MULTIPROCESSING=0: there are no processes to be had."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    sized = dict.fromkeys(LIBRARIES.values(), str(threads))
    return {**kept, **sized, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/dev/null", "JOBLIB_MULTIPROCESSING": "0"}


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


def garbled(what: str) -> ModelError:
    """The process said something that is none of the forms."""
    return ModelError("reply_garbled", f"The model's process said {what}; it was ended.")


def too_slow(timeout_s: float) -> ModelError:
    """It did not answer in time: it loops, is stopped, or holds its interpreter's lock; nobody outside can tell."""
    return ModelError(
        "model_timeout", f"The model did not answer within {timeout_s:g} s; its process was ended.",
        field="models.max_run_s",
    )  # fmt: skip
