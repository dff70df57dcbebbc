"""A model in another process, as everybody else sees one: run, compact, close. Its process is started again when it
dies."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from modelyard.core.errors import ModelError, ModelyardError, UnavailableError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.runtimes.remote.process import Bounds, RemoteProcess, garbled
from modelyard.runtimes.remote.wire import Answer, DoesNotFitError, Failed, Placed, Run, place

EARLIER = 0.95
"""A run ends this much before `models.max_run_s`: at that age the worker itself would count as hanging."""
DOWN_S = 5.0
"""After too many deaths it is not started before this long: by then the version is taken out (models.ports.Health)."""
BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before the first, second, … start after deaths within `within_s`."""

Process = TypeVar("Process", bound=RemoteProcess)


def pause_after(deaths: int) -> float:
    """How long to wait before a start after so many deaths of late, in seconds."""
    return BACKOFF_S[min(max(deaths - 1, 0), len(BACKOFF_S) - 1)]


class RemoteModel(ABC, Generic[Process]):
    """core.types.LoadedModel in another process. A run that ends the process fails with its own code; until the process
    is back, runs fail at once with UnavailableError("model_not_ready"), and for DOWN_S once it died `deaths` times
    within `within_s` seconds."""

    def __init__(self, signature: Signature, bounds: Bounds) -> None:
        self.signature = signature
        self._bounds = bounds
        self._inputs = {spec.name: spec.datatype for spec in signature.inputs}
        self._lock = threading.Lock()
        self._number = 0
        self._starting: threading.Thread | None = None
        self._closed = False
        self._refusal = ""
        self._process: Process | None = self._open()

    @property
    def pid(self) -> int | None:
        """The process that runs it now; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port; one run at a time. ModelError also for what the process did (`process.RemoteProcess.hear`)."""
        with self._lock:
            process = self._living()
            try:
                return self._run(process, inputs, outputs)
            except ModelyardError as error:
                if process.gone:
                    self._lost(error)
                raise

    def compact(self, inputs: Tensors) -> None:
        """See the port: the shared memory's pages go back, the rest is the model's own affair."""
        with self._lock:
            if self._process is not None:
                self._process.give_back(2 * self._bounds.tensor_bytes)

    def close(self) -> None:
        """Lets go of the process."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.leave()
                self._process = None

    @abstractmethod
    def _open(self) -> Process:
        """A process with the model loaded; PublishError, ModelError."""

    @abstractmethod
    def _note_death(self, process: Process | None, error: ModelyardError | None) -> None:
        """The process ended (`error` says how), or none could be started (None, None)."""

    @abstractmethod
    def _pause_s(self) -> float | None:
        """How long to wait before it is started again; None: not now, it died too often."""

    @abstractmethod
    def _failure(self, failed: Failed) -> ModelyardError:
        """What a run's failure is to its caller; the process lives on."""

    @abstractmethod
    def _taken(self, process: Process, answer: Answer, wanted: tuple[str, ...], inputs: Tensors) -> dict[str, Array]:
        """Copies of the answer's tensors."""

    def _run(self, process: Process, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        order = Run(self._next(), self._placed(process, inputs), tuple(outputs))
        reply = process.ask(order, self._bounds.run_s * EARLIER)
        if isinstance(reply, Failed) and reply.id == order.id:
            raise self._failure(reply)
        if not isinstance(reply, Answer):
            raise process.end(garbled("something that is no answer"))
        if reply.id != order.id:
            raise process.end(ModelError("reply_repeated", "The model's process answered another run; it was ended."))
        answered = self._taken(process, reply, order.outputs, inputs)
        process.give_back(sum(placed.size for placed in (*order.inputs, *reply.outputs)))
        return answered

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _placed(self, process: Process, inputs: Tensors) -> tuple[Placed, ...]:
        try:
            return place(inputs, self._inputs, process.given)
        except DoesNotFitError:
            raise ModelError(
                "tensors_too_large", "The rows do not fit into models.jail_tensor_bytes; send fewer at once.",
                field="models.jail_tensor_bytes", expected=f"at most {self._bounds.tensor_bytes} bytes",
            ) from None  # fmt: skip

    def _living(self) -> Process:
        if self._process is not None:
            return self._process
        if self._closed:
            raise ModelError("model_failed", "The model is no longer in memory.")
        self._restart()
        why = f" It could not be started: {self._refusal}" if self._refusal else ""
        raise UnavailableError(
            "model_not_ready", f"The model's process died and is being started again.{why}", retry_after_s=1.0
        )

    def _lost(self, error: ModelyardError | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.leave()
        self._note_death(process, error)
        self._restart()

    def _restart(self) -> None:
        """Starts it again beside, unless that is under way, or it died too often of late."""
        if self._closed or self._starting is not None:
            return
        pause_s = self._pause_s()
        if pause_s is not None:
            self._starting = threading.Thread(target=self._start, args=(pause_s,), name="model-start", daemon=True)
            self._starting.start()

    def _start(self, pause_s: float) -> None:
        time.sleep(pause_s)
        process: Process | None = None
        died, refusal = False, ""
        if not self._closed:
            try:
                process = self._open()
            except Exception as error:  # no process or memory to be had is no reason never to try again
                died, refusal = True, error.message if isinstance(error, ModelyardError) else ""
        with self._lock:
            self._starting, self._refusal = None, refusal
            if self._closed and process is not None:
                process.leave()
            elif died:
                self._lost(None)
            else:
                self._process = process
