"""What a model is, once its code may run: this is the one module of Modelyard that loads pickles, and it is imported in
a jail alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from modelyard.core.types import Array, Signature


class Adapter(Protocol):
    """A loaded model inside the jail. `signature` is what it says of itself; None: its owner must."""

    signature: Signature | None
    provenance: dict[str, str]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Any]:
        """The outputs that are asked for, by name (all, if empty); more are ignored."""


class PythonModel:
    """A class of the owner's: `load(folder)` once, then `predict(inputs)`, tensors by name in and out."""

    def __init__(self, folder: Path, entry: str, options: Mapping[str, Any]) -> None:
        named = json.loads((folder / entry).read_text())["python_class"]
        module, _, name = str(named).partition(":")
        self._model = getattr(importlib.import_module(module), name)()
        self._model.load(folder)
        self.signature: Signature | None = None
        self.provenance = {"python_class": str(named)[:200]}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Any]:
        """See Adapter."""
        answered = self._model.predict(dict(inputs))
        if not isinstance(answered, Mapping):
            raise TypeError(f"`predict` gave a {type(answered).__name__}, not tensors by name")
        return answered


class PickledEstimator:
    """A scikit-learn estimator as pickle, joblib or cloudpickle wrote it; answers as the format `sklearn` does."""

    def __init__(self, folder: Path, entry: str, options: Mapping[str, Any]) -> None:
        import joblib
        import sklearn

        from modelyard.runtimes.sklearn import SklearnModel, estimator_signature, settle

        estimator = settle(joblib.load(folder / entry))
        self.signature: Signature | None = estimator_signature(estimator)
        self.provenance = {"estimator": type(estimator).__name__, "scikit_learn": sklearn.__version__}
        self._model = SklearnModel(estimator, self.signature)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Any]:
        """See Adapter."""
        return self._model.run(inputs, outputs)


class ScriptedModule:
    """A module in TorchScript; what it gives is found by running it, unless its signature was published."""

    def __init__(self, folder: Path, entry: str, options: Mapping[str, Any]) -> None:
        from modelyard.runtimes.torch.loaded import TorchModel
        from modelyard.runtimes.torch.script_module import load_module, module_signature

        module = load_module(folder / entry)
        self.signature: Signature | None = options["published"] or module_signature(module, options)
        self.provenance: dict[str, str] = {}
        self._model = TorchModel(module, self.signature, int(options["threads"]))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Any]:
        """See Adapter."""
        return self._model.run(inputs, outputs)


ADAPTERS: Mapping[str, Callable[[Path, str, Mapping[str, Any]], Adapter]] = {
    "python": PythonModel,
    "pickle": PickledEstimator,
    "torchscript": ScriptedModule,
}
"""By format."""
