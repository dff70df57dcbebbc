"""A model in a jail, as everybody else sees one: run, compact, close. Its process is started again when it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from modelyard.core.errors import CODES, ModelError, ModelyardError, PublishError, UnavailableError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.runtimes.jail.process import JailBounds, JailProcess, What, garbled
from modelyard.runtimes.jail.wire import (
    Answer,
    DoesNotFitError,
    Failed,
    Load,
    Loaded,
    Run,
    WrongTensorError,
    place,
    take,
)
from modelyard.runtimes.refusals import reason

BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before the first, second, … start after deaths within `within_s`."""
DOWN_S = 5.0
"""After too many deaths it is not started before this long: by then the version is taken out (models.ports.Health)."""
EARLIER = 0.95
"""A run ends this much before `models.max_run_s`: at that age the worker itself would count as hanging."""
OWN_CODES = frozenset({"model_failed", "model_out_of_memory", "tensors_too_large"})
"""Failures of a run after which the process lives on."""


def open_jail(what: What, bounds: JailBounds, signature: Signature | None) -> tuple[JailProcess, Loaded]:
    """A confined process with the model loaded. PublishError: jail_unavailable, or as the model was refused."""
    process = JailProcess(what, bounds)
    try:
        process.await_confined()
        reply = process.ask(Load(signature), bounds.load_s)
    except ModelError as error:
        process.kill()
        raise PublishError(
            "warm_up_failed", f"The model could not be loaded: {error.message}", field="model", reason=error.code
        ) from None
    except BaseException:
        process.kill()
        raise
    if isinstance(reply, Loaded):
        return process, reply
    process.kill()
    raise _refused(reply) if isinstance(reply, Failed) else garbled("no answer to the order to load")


def _refused(failed: Failed) -> PublishError:
    """The jail's own words, as far as they may be said here."""
    code = failed.code if CODES.get(failed.code) is PublishError else "warm_up_failed"
    return PublishError(code, f"The model could not be loaded: {_plain(failed.message)}", field="model")


def _plain(message: str) -> str:
    """What a hostile process says, as a sentence: no path, no control character, not long."""
    return reason(ValueError(message))


class JailedModel:
    """core.types.LoadedModel in a jail. A run that ends the process fails with its own code; until the process is
    back, runs fail at once with UnavailableError("model_not_ready"), and for DOWN_S once it died `deaths` times within
    `within_s` seconds."""

    def __init__(self, what: What, bounds: JailBounds, signature: Signature) -> None:
        self.signature = signature
        self._what = what
        self._bounds = bounds
        self._inputs = {spec.name: spec.datatype for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._lock = threading.Lock()
        self._number = 0
        self._deaths: list[float] = []
        self._down_until_s = 0.0
        self._starting: threading.Thread | None = None
        self._closed = False
        self._process: JailProcess | None = open_jail(what, bounds, signature)[0]

    @property
    def pid(self) -> int | None:
        """The process that runs it now; None while there is none."""
        return None if self._process is None else self._process.pid

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port; one run at a time. ModelError also for what the process did (`process.JailProcess.hear`)."""
        with self._lock:
            process = self._living()
            try:
                return self._run(process, inputs, outputs)
            except ModelyardError as error:
                if error.code not in OWN_CODES:
                    self._lost()
                raise

    def compact(self, inputs: Tensors) -> None:
        """See the port: the shared memory's pages go back, the rest is the model's own affair."""
        with self._lock:
            if self._process is not None:
                self._process.give_back(2 * self._bounds.tensor_bytes)

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process = None

    def _run(self, process: JailProcess, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        self._number += 1
        try:
            placed = place(inputs, self._inputs, process.given)
        except DoesNotFitError:
            raise ModelError(
                "tensors_too_large", "The rows do not fit into models.jail_tensor_bytes; send fewer at once.",
                field="models.jail_tensor_bytes", expected=f"at most {self._bounds.tensor_bytes} bytes",
            ) from None  # fmt: skip
        order = Run(self._number, placed, tuple(outputs))
        reply = process.ask(order, self._bounds.run_s * EARLIER)
        if isinstance(reply, Failed) and reply.id == self._number:
            code = reply.code if reply.code in OWN_CODES else "model_failed"
            raise ModelError(code, f"The model failed on this input: {_plain(reply.message)}")
        if not isinstance(reply, Answer):
            raise process.end(garbled("something that is no answer"))
        if reply.id != self._number:
            raise process.end(ModelError("reply_repeated", "The model's process answered another run; it was ended."))
        answered = self._checked(process, reply, tuple(outputs) or tuple(self._outputs), _rows(inputs, self.signature))
        process.give_back(sum(placed.size for placed in (*order.inputs, *reply.outputs)))
        return answered

    def _checked(self, process: JailProcess, reply: Answer, wanted: tuple[str, ...], rows: int) -> dict[str, Array]:
        """Copies of exactly the outputs that were asked for, each of the stated datatype and shape, one row for each
        that was given; ModelError("reply_mismatched")."""
        names = tuple(placed.name for placed in reply.outputs)
        try:
            if names != wanted:
                raise WrongTensorError(f"the outputs {', '.join(names)[:80]} for {', '.join(wanted)[:80]}")
            for placed in reply.outputs:
                spec = self._outputs[placed.name]
                fits = len(placed.shape) == len(spec.shape) and all(
                    want in (-1, have) for have, want in zip(placed.shape, spec.shape, strict=True)
                )
                if placed.datatype != spec.datatype or not fits:
                    raise WrongTensorError(f"{placed.datatype[:20]} {list(placed.shape)[:8]} for `{spec.name}`")
                if rows and spec.shape[:1] == (-1,) and placed.shape[0] != rows:
                    raise WrongTensorError(f"{placed.shape[0]} rows of `{spec.name}` for {rows}")
            return {placed.name: take(placed, process.answered) for placed in reply.outputs}
        except WrongTensorError as error:
            said = f"The model's process gave {_plain(str(error))}; it was ended."
            raise process.end(ModelError("reply_mismatched", said)) from None

    def _living(self) -> JailProcess:
        if self._process is not None:
            return self._process
        if self._closed:
            raise ModelError("model_failed", "The model is no longer in memory.")
        self._restart()
        raise UnavailableError(
            "model_not_ready", "The model's process died and is being started again.", retry_after_s=1.0
        )

    def _lost(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = None
        self._deaths.append(time.monotonic())
        self._restart()

    def _restart(self) -> None:
        """Starts it again beside, unless that is under way, or it died too often of late."""
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < self._bounds.within_s]
        if len(self._deaths) >= self._bounds.deaths:
            self._deaths.clear()  # whoever revives the version later begins anew
            self._down_until_s = now + DOWN_S
        if self._closed or self._starting is not None or now < self._down_until_s:
            return
        pause_s = BACKOFF_S[min(max(len(self._deaths) - 1, 0), len(BACKOFF_S) - 1)]
        self._starting = threading.Thread(target=self._start, args=(pause_s,), name="jail-start", daemon=True)
        self._starting.start()

    def _start(self, pause_s: float) -> None:
        time.sleep(pause_s)
        process: JailProcess | None = None
        died = False
        if not self._closed:
            try:
                process = open_jail(self._what, self._bounds, self.signature)[0]
            except ModelyardError:
                died = True
        with self._lock:
            self._starting = None
            if self._closed and process is not None:
                process.kill()
            elif died:
                self._lost()
            else:
                self._process = process


def _rows(inputs: Mapping[str, Array], signature: Signature) -> int:
    """The rows that all inputs share; 0 if they have no batch in common."""
    if any(spec.shape[:1] != (-1,) for spec in signature.inputs):
        return 0
    counts = {len(array) for array in inputs.values()}
    return counts.pop() if len(counts) == 1 else 0
