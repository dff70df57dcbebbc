"""A model in another process, whatever becomes of the start of its process."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from modelyard.core.errors import ModelError, ModelyardError, UnavailableError
from modelyard.core.types import Array, Signature, Tensors, TensorSpec
from modelyard.runtimes.remote.model import RemoteModel
from modelyard.runtimes.remote.process import Bounds

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 1)),), (TensorSpec("y", "FP64", (-1, 1)),))
ROW = {"x": np.ones((1, 1))}
WITHIN_S = 10


class Process:
    """One that dies in its first run, or answers."""

    pid = 1

    def __init__(self, dies: bool) -> None:
        self.gone = False
        self.dies = dies

    def leave(self) -> None:
        """It is not needed any more."""
        self.gone = True


class Starting(RemoteModel[Any]):
    """Whose first process dies, whose second cannot be started, and whose third answers."""

    def __init__(self, error: Exception) -> None:
        self.starts: list[Any] = [Process(dies=True), error, Process(dies=False)]
        self.back = threading.Event()
        super().__init__(SIGNATURE, Bounds())

    def _open(self) -> Process:
        found: Any = self.starts.pop(0)
        if isinstance(found, Exception):
            raise found
        if not self.starts:
            self.back.set()
        return found  # type: ignore[no-any-return]

    def _run(self, process: Any, inputs: Tensors, outputs: Any) -> dict[str, Array]:
        if process.dies:
            process.leave()
            raise ModelError("model_crashed", "The model's process was ended.")
        return {"y": inputs["x"]}

    def _note_death(self, process: Any, error: ModelyardError | None) -> None:
        """Nobody counts."""

    def _pause_s(self) -> float | None:
        return 0.0

    def _failure(self, failed: Any) -> ModelyardError:
        raise AssertionError("no run fails")

    def _taken(self, *_: Any) -> dict[str, Array]:
        raise AssertionError("nothing is taken")


@pytest.mark.parametrize(
    "error", [OSError(11, "Resource temporarily unavailable"), ModelError("model_crashed", "It died."), MemoryError()]
)
def test_a_start_that_fails_is_tried_again(error: Exception) -> None:
    """P4: a machine that has no process, descriptor or memory to give just now takes no version out for ever."""
    model = Starting(error)
    with pytest.raises(ModelError, match="was ended"):
        model.run(ROW, ())
    assert model.back.wait(WITHIN_S)
    answered: dict[str, Array] = {}
    while not answered:
        try:
            answered = model.run(ROW, ())
        except UnavailableError:
            continue
    np.testing.assert_array_equal(answered["y"], ROW["x"])
    model.close()
