"""A model of every format: small ones for single rows, and ones of a working size for batches; both on real tables."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.contract.runtime_samples import SAMPLES, Sample, _answers, _linear, table

from bench.format_page import BATCH, DATA
from modelyard.models.manifest import Manifest
from modelyard.models.ports import UNSAFE_FORMATS
from modelyard.models.publish import read_overrides
from modelyard.models.signing import keys
from modelyard.models.signing.statement import OVERRIDES_FILE, SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES

TREE = "sklearn.tree._tree.Tree"
LARGEST_BYTES = 2**32
LINEAR = """
import json
import numpy as np

class Linear:
    def load(self, folder):
        known = json.loads((folder / "weights.json").read_text())
        self.weights, self.shift = np.array(known["w"]), known["b"]

    def predict(self, inputs):
        score = inputs["X"] @ self.weights + self.shift
        share = 1 / (1 + np.exp(-score))
        return {"label": (score > 0).astype(np.int64), "probabilities": np.stack([1 - share, share], axis=1)}
"""
DENSE = """
import numpy as np

class Perceptron:
    def load(self, folder):
        self.layers = [np.load(folder / f"{i}.npy") for i in range(6)]

    def predict(self, inputs):
        rows = inputs["X"]
        for i in (0, 2):
            rows = np.maximum(rows @ self.layers[i] + self.layers[i + 1], 0)
        scores = rows @ self.layers[4] + self.layers[5]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return {"scores": powers / powers.sum(axis=1, keepdims=True)}
"""


@dataclass(frozen=True)
class Made:
    """A model in a folder of its own, and rows for it. `answers` are its library's, by output, where they are
    compared."""

    format: str
    folder: Path
    name: str
    rows: np.ndarray
    answers: Mapping[str, np.ndarray] = field(default_factory=dict)
    tolerance: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file that is served."""
        return self.folder / self.name


def small(folder: Path) -> dict[str, Made]:
    """Linear models and twenty rounds of trees on breast cancer, a third of it held out."""
    found = {}
    for name, make in SAMPLES.items():
        if name == "stub":
            continue
        found[name] = as_made(make(DATA, _new(folder / f"made-{name}")), folder / name)
    # The library's own loader asks for the folders that a SavedModel without variables does without.
    shutil.copytree(folder / "made-tensorflow" / "saved", folder / "tensorflow", dirs_exist_ok=True)
    return {**found, **classes_and_pickles(folder)}


def as_made(sample: Sample, folder: Path) -> Made:
    """The folder to publish; what TorchScript does not say stands beside it."""
    sample.write(folder)
    if sample.options:
        (folder / "modelyard.json").write_bytes(msgspec.json.encode(sample.options))
    return Made(sample.format, folder, sample.name, sample.rows, sample.answers, sample.tolerance, sample.options)


def inspected(made: Made) -> tuple[Manifest, dict[str, Any]]:
    """What a publish would find, without its files; and how it would be loaded."""
    runtime = RUNTIMES[made.format]
    entry = runtime.detect(made.folder) or made.name
    stated = read_overrides(made.folder / OVERRIDES_FILE)
    options = {"threads": 1, "trusted_types": (TREE,), "signature": stated.signature}
    found = runtime.inspect(made.folder, entry, options)
    return Manifest(found.format, entry, (), found.signature), options


def classes_and_pickles(folder: Path) -> dict[str, Made]:
    """The same linear model as a class, by pickle and by joblib."""
    import joblib

    known = table(DATA)
    model = _linear(known)
    answers = _answers(model, known, "value")
    says = {"w": model.coef_[0].tolist(), "b": float(model.intercept_[0])}
    width = known.held.shape[1]
    outputs = [_tensor("label", "INT64", -1), _tensor("probabilities", "FP64", -1, 2)]
    python = _python(folder / "python", "linear", "Linear", LINEAR, [_tensor("X", "FP64", -1, width)], outputs)
    (python / "weights.json").write_text(json.dumps(says))
    pickled, dumped = _new(folder / "pickle"), _new(folder / "joblib")
    (pickled / "model.pkl").write_bytes(pickle.dumps(model))
    joblib.dump(model, dumped / "model.joblib", compress=3)
    return {
        "python": Made("python", python, "named.json", known.held, answers, 1e-9),
        "pickle": Made("pickle", pickled, "model.pkl", known.held, answers),
        "pickle-joblib": Made("pickle", dumped, "model.joblib", known.held, answers),
    }


def working(folder: Path) -> dict[str, Made]:
    """On the digits: 1,000 trees of boosting, a forest of 200, and a perceptron 784-1024-1024-10 (7 MB). One for each
    format: how a file is spelt is gone once it is loaded."""
    return {**_boosted(folder), **_forests(folder), **_perceptrons(folder)}


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)  # type: ignore[no-any-return]


def _boosted(folder: Path) -> dict[str, Made]:
    from lightgbm import LGBMClassifier
    from xgboost import XGBClassifier

    rows, target = _digits()
    light = LGBMClassifier(n_estimators=100, verbosity=-1, n_jobs=1, random_state=0).fit(rows, target)
    light.booster_.save_model(_new(folder / "lightgbm") / "model.txt")
    single = rows.astype(np.float32)
    strong = XGBClassifier(n_estimators=100, n_jobs=1, random_state=0).fit(single, target)
    strong.save_model(_new(folder / "xgboost-json") / "model.json")
    return {
        "lightgbm": Made("lightgbm", folder / "lightgbm", "model.txt", rows[:BATCH]),
        "xgboost-json": Made("xgboost", folder / "xgboost-json", "model.json", single[:BATCH]),
    }


def _forests(folder: Path) -> dict[str, Made]:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    rows, target = _digits()
    forest = RandomForestClassifier(200, n_jobs=1, random_state=0).fit(rows, target)
    skops.io.dump(forest, _new(folder / "sklearn") / "model.skops")
    (_new(folder / "pickle") / "model.pkl").write_bytes(pickle.dumps(forest))
    return {
        "sklearn": Made("sklearn", folder / "sklearn", "model.skops", rows[:BATCH]),
        "pickle": Made("pickle", folder / "pickle", "model.pkl", rows[:BATCH]),
    }


def _perceptrons(folder: Path) -> dict[str, Made]:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    images, target = _digits()
    rows = np.kron(images.reshape(-1, 8, 8), np.ones((1, 4, 4)))[:, 2:30, 2:30].reshape(-1, 784).astype(np.float32) / 16
    model = MLPClassifier((1024, 1024), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, target)
    layers = [np.asarray(a, np.float32) for pair in zip(model.coefs_, model.intercepts_, strict=True) for a in pair]
    batch = np.ascontiguousarray(rows[:BATCH])
    onnx = to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString()
    (_new(folder / "onnx") / "model.onnx").write_bytes(onnx)
    inputs, outputs = [_tensor("X", "FP32", -1, 784)], [_tensor("scores", "FP32", -1, 10)]
    python = _python(folder / "python", "dense", "Perceptron", DENSE, inputs, outputs)
    for i, array in enumerate(layers):
        np.save(python / f"{i}.npy", array)
    return {
        "onnx": Made("onnx", folder / "onnx", "model.onnx", batch),
        "python": Made("python", python, "named.json", batch),
        **_torch(folder, layers, batch),
        "tensorflow": _tensorflow(folder / "tensorflow", layers, batch),
    }


def _torch(folder: Path, layers: list[np.ndarray], batch: np.ndarray) -> dict[str, Made]:
    import torch

    modules: list[Any] = []
    for weights, shift in zip(layers[::2], layers[1::2], strict=True):
        layer = torch.nn.Linear(*weights.shape)
        layer.load_state_dict({"weight": torch.from_numpy(weights.T.copy()), "bias": torch.from_numpy(shift)})
        modules += [layer, torch.nn.ReLU()]
    module = torch.nn.Sequential(*modules[:-1], torch.nn.Softmax(dim=1)).eval()
    script, export = _new(folder / "torchscript"), _new(folder / "torch-export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(script / "model.pt"))
    stated = {"signature": {"inputs": [_tensor("input", "FP32", -1, 784)]}}
    (script / "modelyard.json").write_text(json.dumps(stated))
    shapes = ({0: torch.export.Dim("rows", max=4096)},)
    torch.export.save(
        torch.export.export(module, (torch.from_numpy(batch),), dynamic_shapes=shapes), export / "model.pt2"
    )
    return {
        "torchscript": Made("torchscript", script, "model.pt", batch),
        "torch-export": Made("torch_export", export, "model.pt2", batch),
    }


def _tensorflow(folder: Path, layers: list[np.ndarray], batch: np.ndarray) -> Made:
    from modelyard.runtimes.tensorflow.runtime import import_tensorflow

    tf = import_tensorflow()
    held = [tf.constant(array) for array in layers]

    def answer(x: Any) -> Any:
        for i in (0, 2):
            x = tf.nn.relu(x @ held[i] + held[i + 1])
        return {"scores": tf.nn.softmax(x @ held[4] + held[5])}

    module = tf.Module()
    module.answer = tf.function(answer, input_signature=[tf.TensorSpec([None, 784], tf.float32, "x")])
    tf.saved_model.save(module, str(folder), signatures=module.answer)
    return Made("tensorflow", folder, "saved_model.pb", batch)


def _python(
    folder: Path, module: str, name: str, source: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> Path:
    """A folder with a class and what it takes and gives."""
    _new(folder)
    (folder / f"{module}.py").write_text(source)
    (folder / "named.json").write_text(json.dumps({"python_class": f"{module}:{name}"}))
    (folder / "modelyard.json").write_text(json.dumps({"signature": {"inputs": inputs, "outputs": outputs}}))
    return folder


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def signed(models: Mapping[str, Made]) -> dict[str, str]:
    """Signs those that are programs; the settings, as variables, of a server that trusts the signer."""
    key = keys.key_from_seed(os.urandom(32))
    for made in models.values():
        if made.format in UNSAFE_FORMATS:
            (made.folder / SIGNATURE_FILE).write_bytes(sign(hash_folder(made.folder, LARGEST_BYTES), key))
    return {
        "MODELYARD_MODELS__UNSAFE_FORMATS": json.dumps(sorted(UNSAFE_FORMATS)),
        "MODELYARD_MODELS__TRUSTED_SIGNERS": json.dumps([keys.public_line(keys.public_bytes(key))]),
        "MODELYARD_MODELS__TRUSTED_TYPES": json.dumps([TREE]),
    }


SIZES: Mapping[str, Callable[[Path], dict[str, Made]]] = {"small": small, "working": working}
