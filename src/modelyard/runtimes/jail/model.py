"""A model in a jail: opened, and every answer of it checked."""

from __future__ import annotations

import time
from collections.abc import Mapping

from modelyard.core.errors import CODES, ModelError, ModelyardError, PublishError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.models.loads.verified import unnamed, untouched, verify
from modelyard.models.manifest import Manifest
from modelyard.runtimes.jail.process import JailBounds, JailProcess, What
from modelyard.runtimes.refusals import reason
from modelyard.runtimes.remote.model import DOWN_S, RemoteModel, pause_after
from modelyard.runtimes.remote.process import garbled
from modelyard.runtimes.remote.wire import Answer, Failed, Load, Loaded, WrongTensorError, take

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


class JailedModel(RemoteModel[JailProcess]):
    """core.types.LoadedModel in a jail, in a process of its own. Each start of the process reads the files, which are
    held to their hashes again: a jail that died must not come back with other code (P5)."""

    def __init__(self, what: What, bounds: JailBounds, manifest: Manifest) -> None:
        self._what = what
        self._jail = bounds
        self._manifest = manifest
        signature = manifest.signature
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._deaths: list[float] = []
        self._down_until_s = 0.0
        super().__init__(signature, bounds)

    def _open(self) -> JailProcess:
        if not self._manifest.files:  # a publish check: its manifest comes of it
            return open_jail(self._what, self._jail, self.signature)[0]
        process: JailProcess | None = None
        version, folder = unnamed(self._manifest), self._what.folder
        try:
            with untouched(version, folder):
                verify(version, folder)
                process, _ = open_jail(self._what, self._jail, self.signature)
        except BaseException:
            if process is not None:
                process.kill()
            raise
        return process

    def _note_death(self, process: JailProcess | None, error: ModelyardError | None) -> None:
        self._deaths.append(time.monotonic())

    def _pause_s(self) -> float | None:
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < self._jail.within_s]
        if len(self._deaths) >= self._jail.deaths:
            self._deaths.clear()  # whoever revives the version later begins anew
            self._down_until_s = now + DOWN_S
        return None if now < self._down_until_s else pause_after(len(self._deaths))

    def _failure(self, failed: Failed) -> ModelyardError:
        code = failed.code if failed.code in OWN_CODES else "model_failed"
        return ModelError(code, f"The model failed on this input: {_plain(failed.message)}")

    def _taken(
        self, process: JailProcess, answer: Answer, wanted: tuple[str, ...], inputs: Tensors
    ) -> dict[str, Array]:
        """Copies of exactly the outputs that were asked for, each of the stated datatype and shape, one row for each
        that was given; ModelError("reply_mismatched")."""
        wanted, rows = wanted or tuple(self._outputs), _rows(inputs, self.signature)
        names = tuple(placed.name for placed in answer.outputs)
        try:
            if names != wanted:
                raise WrongTensorError(f"the outputs {', '.join(names)[:80]} for {', '.join(wanted)[:80]}")
            for placed in answer.outputs:
                spec = self._outputs[placed.name]
                fits = len(placed.shape) == len(spec.shape) and all(
                    want in (-1, have) for have, want in zip(placed.shape, spec.shape, strict=True)
                )
                if placed.datatype != spec.datatype or not fits:
                    raise WrongTensorError(f"{placed.datatype[:20]} {list(placed.shape)[:8]} for `{spec.name}`")
                if rows and spec.shape[:1] == (-1,) and placed.shape[0] != rows:
                    raise WrongTensorError(f"{placed.shape[0]} rows of `{spec.name}` for {rows}")
            return {placed.name: take(placed, process.answered) for placed in answer.outputs}
        except WrongTensorError as error:
            said = f"The model's process gave {_plain(str(error))}; it was ended."
            raise process.end(ModelError("reply_mismatched", said)) from None


def _rows(inputs: Mapping[str, Array], signature: Signature) -> int:
    """The rows that all inputs share; 0 if they have no batch in common."""
    if any(spec.shape[:1] != (-1,) for spec in signature.inputs):
        return 0
    counts = {len(array) for array in inputs.values()}
    return counts.pop() if len(counts) == 1 else 0
