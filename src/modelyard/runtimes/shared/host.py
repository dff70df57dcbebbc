"""`python -m modelyard.runtimes.shared.host`: loads one version once, and runs it for every worker that connects.

What to load comes by stdin (words.Hosted). It ends with the server, when it was left alone for long enough, and when
the model could not be loaded.
"""

from __future__ import annotations

import mmap
import os
import re
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modelyard.core.errors import ModelyardError, OverloadError
from modelyard.core.types import DATATYPES, Array, LoadedModel
from modelyard.models.loads.verified import unnamed, untouched, verify
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.refusals import reason
from modelyard.runtimes.remote.model import EARLIER
from modelyard.runtimes.remote.process import Bounds
from modelyard.runtimes.remote.wire import (
    LENGTH,
    Answer,
    DoesNotFitError,
    Loaded,
    Placed,
    frame,
    place,
    take,
)
from modelyard.runtimes.shared.words import Asked, Attach, Compact, Hello, Hosted, Refused, Said

CONCURRENT = frozenset({"onnx"})
"""Formats whose library says that one loaded model may run in several threads at once; the others take turns."""
WAIT_SHARE = 0.4
"""Of the time that a worker gives a run it may wait so much for its turn; the rest is its own. A worker cannot tell a
wait from a hang, so a run that waited through all of it would cost everybody the process."""
TICK_MS = 500
_NO_MEMORY = re.compile("bad_alloc|[Ff]ailed to allocate|[Cc]an(no|')t allocate|not enough memory")
"""How libraries say that the kernel gave them no memory."""
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


class Host:
    """The version, loaded when the first worker asks for it, and the workers' connections."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._stated = {spec.name: spec.datatype for spec in hosted.manifest.signature.outputs}
        self._incarnation = f"{os.getpid()}-{time.monotonic_ns()}"
        self._wait_s = Bounds.of(hosted.options).run_s * EARLIER * WAIT_SHARE
        self._turns = None if hosted.manifest.format in CONCURRENT else threading.Lock()
        self._loading = threading.Lock()
        self._model: LoadedModel | None = None
        self._refused: Refused | None = None
        self._counting = threading.Lock()
        self._workers = 0
        self._alone_since_s = time.monotonic()

    def serve(self, listener: socket.socket) -> None:
        """Takes connections until nobody needs it any more."""
        server = os.pidfd_open(self._hosted.server)
        poll = select.poll()
        for descriptor in (listener.fileno(), server):
            poll.register(descriptor, select.POLLIN)
        while not self._is_over(time.monotonic()):
            for descriptor, _ in poll.poll(TICK_MS):
                if descriptor == server:
                    return
                connection, _ = listener.accept()
                self._count(1)
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _is_over(self, now_s: float) -> bool:
        with self._counting:
            linger_s = 0.0 if self._refused else self._hosted.linger_s
            return not self._workers and now_s - self._alone_since_s >= linger_s

    def _count(self, change: int) -> None:
        with self._counting:
            self._workers += change
            self._alone_since_s = time.monotonic()

    def _converse(self, connection: socket.socket) -> None:
        """One worker, until it leaves or dies: nobody else notices."""
        try:
            with connection, suppress(OSError, EOFError):
                _say(connection, Hello(os.getpid(), self._incarnation))
                given, answered = _attached(connection)
                _say(connection, self._load())
                while self._refused is None:
                    _say(connection, self._obey(_hear(connection), given, answered))
        finally:
            self._count(-1)

    def _load(self) -> Said:
        with self._loading:
            if self._model is None and self._refused is None:
                try:
                    self._model = self._loaded()
                except ModelyardError as error:
                    self._refused = Refused(0, error.code, error.message, dict(error.detail))
                except MemoryError:
                    self._refused = Refused(0, "warm_up_failed", "There is not enough memory to load the model.")
                except Exception as error:
                    said = f"The model broke its reader ({type(error).__name__})."
                    self._refused = Refused(0, "model_unreadable", said)
            return self._refused or Loaded(None)

    def _loaded(self) -> LoadedModel:
        """Verified here too: a worker may have looked before the files were put right, or after (P5)."""
        from modelyard.models.load import trim  # brings the codecs, which a first hello need not wait for

        hosted = self._hosted
        folder, version = Path(hosted.folder), unnamed(hosted.manifest)
        with untouched(version, folder), ThreadPoolExecutor(1, "verify") as beside:
            verified = beside.submit(verify, version, folder)
            try:
                loaded = RUNTIMES[hosted.manifest.format].load(folder, hosted.manifest, hosted.options)
            except Exception:
                verified.result()  # what is not the published file need not be one that can be read
                raise
            verified.result()
        trim()
        limit(hosted.run_bytes)
        return loaded

    def _obey(self, order: Asked, given: memoryview, answered: memoryview) -> Said:
        """What comes of an order; a failure of the model is an answer too."""
        if self._model is None or isinstance(order, Attach):
            return Loaded(None)
        try:
            inputs = {placed.name: take(placed, given, copy=False) for placed in order.inputs}
            with self._turn():
                if isinstance(order, Compact):
                    self._model.compact(inputs)
                    return Answer(order.id, ())
                outputs = self._model.run(inputs, order.outputs)
            return Answer(order.id, self._placed(outputs, answered))
        except MemoryError:
            return Refused(order.id, "model_out_of_memory", "The model needs more memory than its process may use.")
        except DoesNotFitError:
            said = "The answer does not fit into models.jail_tensor_bytes."
            return Refused(order.id, "tensors_too_large", said)
        except ModelyardError as error:
            if error.code == "model_failed" and _NO_MEMORY.search(error.message):
                return Refused(order.id, "model_out_of_memory", error.message)
            return Refused(order.id, error.code, error.message, dict(error.detail))
        except Exception as error:
            return Refused(order.id, "model_failed", f"The model failed on this input: {reason(error)}")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The model to itself, where its library takes turns; OverloadError after WAIT_SHARE of a run's time."""
        if self._turns is None:
            yield
            return
        if not self._turns.acquire(timeout=self._wait_s):
            said = "The model is busy with what other workers ask of it; nothing was done."
            raise OverloadError("overloaded", said, field="models.max_run_s")
        try:
            yield
        finally:
            self._turns.release()

    def _placed(self, outputs: Mapping[str, Array], answered: memoryview) -> tuple[Placed, ...]:
        """As the model gave them: each of its own datatype."""
        datatypes = {name: _NAMES.get(array.dtype, self._stated.get(name, "")) for name, array in outputs.items()}
        return place(outputs, datatypes, answered)


def limit(run_bytes: int) -> None:
    """From now on the process may take so much more memory of its own. RLIMIT_DATA, not RLIMIT_AS: files that are
    mapped to be read, and the workers' memory, are not its own."""
    status = Path("/proc/self/status").read_text()
    held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + run_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _attached(connection: socket.socket) -> tuple[memoryview, memoryview]:
    """The worker's memory; EOFError, OSError."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 1)
    if not head:
        raise EOFError
    order = _read_order(connection, head)
    if not isinstance(order, Attach) or len(descriptors) != 1:
        raise EOFError
    try:
        memory = memoryview(mmap.mmap(descriptors[0], 2 * order.half_bytes))
    finally:
        os.close(descriptors[0])
    return memory[: order.half_bytes], memory[order.half_bytes :]


def _hear(connection: socket.socket) -> Asked:
    return _read_order(connection, b"")


def _read_order(connection: socket.socket, head: bytes) -> Asked:
    head += _read(connection, LENGTH.size - len(head))
    order: Asked = msgspec.msgpack.decode(_read(connection, LENGTH.unpack(head)[0]), type=Asked)
    return order


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _say(connection: socket.socket, said: Said) -> None:
    connection.sendall(frame(said))


def main() -> None:
    """Never returns: a library's threads must not keep a process that is over."""
    hosted = msgspec.json.decode(sys.stdin.buffer.read(), type=Hosted)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ProcessLookupError), socket.socket(fileno=hosted.listener) as listener:
        Host(hosted).serve(listener)
    os._exit(0)


if __name__ == "__main__":
    main()
