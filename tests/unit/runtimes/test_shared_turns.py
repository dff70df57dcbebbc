"""Workers take turns at a model that runs one at a time: who waits is told that it is busy, not that it hangs."""

from __future__ import annotations

import os
import threading

import msgspec
import numpy as np
import pytest

from modelyard.core.errors import OverloadError
from modelyard.core.types import Signature, Tensors, TensorSpec
from modelyard.runtimes.remote.model import EARLIER
from modelyard.runtimes.remote.wire import Answer, Run, place
from modelyard.runtimes.shared.host import Host
from modelyard.runtimes.shared.process import error_of
from modelyard.runtimes.shared.words import Hosted, Refused, Said
from modelyard.testing import StubModel, manifest

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 1)),), (TensorSpec("y", "FP64", (-1, 1)),))
WITHIN_S = 10
RUN_S = 0.2
AREA_BYTES = 4096


class Turns:
    """A host without a socket, whose model's first run lasts until `over` is set."""

    def __init__(self, form: str, run_s: float = RUN_S) -> None:
        known = msgspec.structs.replace(manifest(), format=form, signature=SIGNATURE)
        self.host = Host(Hosted("", known, {"jail": {"run_s": run_s}, "threads": 1}, -1, os.getpid(), 0.0, 0))
        self.over, self.running = threading.Event(), threading.Event()
        self.model = StubModel(signature=SIGNATURE, before_run=self._hold)
        self.host._model = self.model

    def _hold(self, inputs: Tensors) -> None:
        if not self.running.is_set():
            self.running.set()
            assert self.over.wait(WITHIN_S)

    def ask(self, number: int) -> Said:
        """What one worker hears to a row that holds the number."""
        given, answered = memoryview(bytearray(AREA_BYTES)), memoryview(bytearray(AREA_BYTES))
        placed = place({"x": np.full((1, 1), float(number))}, {"x": "FP64"}, given)
        return self.host._obey(Run(number, placed, ()), given, answered)


def _behind(turns: Turns) -> tuple[threading.Thread, list[Said]]:
    """A worker whose run holds the model."""
    said: list[Said] = []
    first = threading.Thread(target=lambda: said.append(turns.ask(1)), daemon=True)
    first.start()
    assert turns.running.wait(WITHIN_S)
    return first, said


def test_who_waits_too_long_hears_that_it_is_busy() -> None:
    """P4: behind another worker's long run: `overloaded` in time for the worker not to take the wait for a hang, and
    kill the process under all of them. The run in front gets its answer, and the next one its turn."""
    turns = Turns("sklearn")
    first, said = _behind(turns)
    refused: list[Said] = []
    second = threading.Thread(target=lambda: refused.append(turns.ask(2)), daemon=True)
    second.start()
    second.join(WITHIN_S / 2)
    assert isinstance(refused[0], Refused)
    error = error_of(refused[0])
    assert (type(error), error.code) == (OverloadError, "overloaded")
    assert turns.model.calls == [1]
    turns.over.set()
    first.join(WITHIN_S)
    assert [type(each) for each in (said[0], turns.ask(3))] == [Answer, Answer]
    assert turns.model.calls == [1, 1]


def test_a_wait_that_is_not_too_long_is_answered() -> None:
    """The turn comes when the run in front is over."""
    turns = Turns("lightgbm", run_s=10 * WITHIN_S)
    first, said = _behind(turns)
    second = threading.Thread(target=lambda: said.append(turns.ask(2)), daemon=True)
    second.start()
    turns.over.set()
    for each in (first, second):
        each.join(WITHIN_S)
    assert [type(each) for each in said] == [Answer, Answer]


def test_a_library_that_runs_in_several_threads_makes_nobody_wait() -> None:
    """Beside a run that lasts, ONNX Runtime's are answered."""
    turns = Turns("onnx")
    first, _ = _behind(turns)
    assert isinstance(turns.ask(2), Answer)
    turns.over.set()
    first.join(WITHIN_S)


@pytest.mark.parametrize("run_s", [0.1, 60.0])
def test_a_turn_leaves_a_run_more_time_than_its_wait(run_s: float) -> None:
    """What the wait may take of the time after which the worker ends the process is less than half."""
    turns = Turns("sklearn", run_s)
    assert 0 < turns.host._wait_s < run_s * EARLIER / 2
