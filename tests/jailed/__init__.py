"""Classes in Python that a jail runs in the tests, and the waiting for a process that is started again."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelyard.core.errors import ModelyardError
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.report import SignatureCompletion, TensorCompletion
from modelyard.runtimes.jail.model import JailedModel
from modelyard.runtimes.jail.process import JailBounds, What

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("y", "FP64", (-1, 2)),))
STATED = {
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1, 2]}],
    }
}
OPTIONS = {
    "signature": SignatureCompletion(
        (TensorCompletion("x", "FP64", (-1, 2)),), (TensorCompletion("y", "FP64", (-1, 2)),)
    )
}
BOUNDS = JailBounds(memory_bytes=1024**3, tensor_bytes=4 * 1024**2, run_s=2.0, load_s=60.0)
BACK_WITHIN_S = 30.0
DOUBLING = """
class Model:
    def load(self, folder):
        self.factor = 2.0

    def predict(self, inputs):
        return {"y": inputs["x"] * self.factor}
"""


def python_model(folder: Path, source: str = DOUBLING, name: str = "mine") -> Path:
    """A folder with `name`.py, whose class Model is the model, and the file that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    (folder / "python.json").write_text(json.dumps({"python_class": f"{name}:Model"}))
    return folder


def jailed(
    folder: Path,
    bounds: JailBounds = BOUNDS,
    entry: str = "python.json",
    form: str = "python",
    files: Sequence[FileEntry] = (),
) -> JailedModel:
    """The model of a folder, in its jail; `files` as they were published (none: as in a publish check)."""
    return JailedModel(What(folder, entry, form), bounds, Manifest(form, entry, tuple(files), SIGNATURE))


def misdeed(loaded: JailedModel, number: int) -> str:
    """The code of what comes of a run whose first value is `number`."""
    try:
        loaded.run({"x": np.full((1, 2), float(number))}, ())
    except ModelyardError as error:
        return error.code
    return ""


def back(loaded: JailedModel) -> None:
    """Waits until the model answers again: it was started anew."""
    until_s = time.monotonic() + BACK_WITHIN_S
    while (code := misdeed(loaded, 0)) == "model_not_ready":
        assert time.monotonic() < until_s, "it did not come back"
        time.sleep(0.02)
    assert code == ""
