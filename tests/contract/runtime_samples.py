"""A model of every format for the runtimes' contract: trained on a real table, with the library's own answers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from modelyard.core.types import Array
from modelyard.runtimes.tensorflow.runtime import import_tensorflow

CLASSES = {"iris": 3, "breast_cancer": 2, "diabetes": 0}
"""Tables, and how many classes they tell apart; 0: a number."""


@dataclass(frozen=True)
class Table:
    """Rows to train on, rows that the model never saw, and what is known of both."""

    seen: Any
    seen_target: Any
    held: Any
    classes: int


@dataclass(frozen=True)
class Sample:
    """A model's file, held-out rows, and what its own library answers to them, by output. `tolerance` is how far the
    answers may be apart, absolute."""

    format: str
    name: str
    content: bytes
    rows: Array
    answers: Mapping[str, Array]
    classes: int = 0
    tolerance: float = 0.0
    extra: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, content: bytes | None = None, name: str | None = None) -> Path:
        """The model in a folder of its own."""
        folder.mkdir()
        (folder / (name or self.name)).write_bytes(self.content if content is None else content)
        return folder


def table(name: str, dtype: Any = np.float64) -> Table:
    """A table of scikit-learn, a third of it held out."""
    rows, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    seen, held, seen_target, _ = train_test_split(rows.astype(dtype), target, test_size=0.33, random_state=0)
    return Table(seen, seen_target, held, CLASSES[name])


def stub(name: str, folder: Path) -> Sample:
    """The public fake: twice its input."""
    known = table(name, np.float32)
    columns = [f"c{i}" for i in range(known.seen.shape[1])]
    content = json.dumps({"k": 2.0, "columns": columns}).encode()
    return Sample("stub", "stub.json", content, known.held, {"y": known.held * np.float32(2)})


def onnx(name: str, folder: Path) -> Sample:
    """What skl2onnx makes of a linear model."""
    from skl2onnx import to_onnx

    known = table(name, np.float32)
    model = _linear(known)
    options = {"zipmap": False} if known.classes else None
    content = to_onnx(model, known.seen[:1], options=options).SerializeToString()
    answers = _answers(model, known, "variable" if not known.classes else "")
    return Sample("onnx", "model.onnx", bytes(content), known.held, answers, known.classes, 1e-2)


def sklearn(name: str, folder: Path) -> Sample:
    """A linear model in a skops file."""
    from skops.io import dumps

    known = table(name)
    model = _linear(known)
    answers = _answers(model, known, "value")
    return Sample("sklearn", "model.skops", dumps(model), known.held, answers, known.classes, extra="sklearn")


def lightgbm(name: str, folder: Path) -> Sample:
    """Twenty rounds, as LightGBM's scikit-learn class trains them and its booster saves them."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    known = table(name)
    kind = LGBMClassifier if known.classes else LGBMRegressor
    model = kind(n_estimators=20, verbosity=-1, n_jobs=1, random_state=0).fit(known.seen, known.seen_target)
    model.booster_.save_model(folder / "saved.txt")
    content = (folder / "saved.txt").read_bytes()
    answers = _answers(model, known, "value")
    return Sample("lightgbm", "model.txt", content, known.held, answers, known.classes, 1e-12, extra="lightgbm")


def xgboost_json(name: str, folder: Path) -> Sample:
    """Twenty rounds, saved as JSON."""
    return _xgboost(name, folder, "json")


def xgboost_ubj(name: str, folder: Path) -> Sample:
    """Twenty rounds, saved as UBJSON."""
    return _xgboost(name, folder, "ubj")


def _xgboost(name: str, folder: Path, suffix: str) -> Sample:
    from xgboost import XGBClassifier, XGBRegressor

    known = table(name, np.float32)
    kind = XGBClassifier if known.classes else XGBRegressor
    model = kind(n_estimators=20, n_jobs=1, random_state=0).fit(known.seen, known.seen_target)
    model.save_model(folder / f"saved.{suffix}")
    content = (folder / f"saved.{suffix}").read_bytes()
    answers = _answers(model, known, "value")
    return Sample("xgboost", f"model.{suffix}", content, known.held, answers, known.classes, 1e-6, extra="xgboost")


def torch_export(name: str, folder: Path) -> Sample:
    """The same linear model as layers of PyTorch, exported for any number of rows."""
    import torch

    known = table(name, np.float32)
    module = _layers(known)
    shapes = ({0: torch.export.Dim("rows", max=4096)},)
    program = torch.export.export(module, (torch.from_numpy(known.held),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "saved.pt2")
    content = (folder / "saved.pt2").read_bytes()
    output = "softmax" if known.classes else "linear"
    return Sample("torch_export", "model.pt2", content, known.held, {output: _own(module, known)}, 0, 1e-6, "torch")


def torchscript(name: str, folder: Path) -> Sample:
    """The same as TorchScript, with the signature that its owner states."""
    import torch

    from modelyard.models.report import SignatureCompletion, TensorCompletion

    known = table(name, np.float32)
    module = _layers(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(folder / "saved.pt"))
    content = (folder / "saved.pt").read_bytes()
    stated = SignatureCompletion(inputs=(TensorCompletion("input", "FP32", (-1, known.seen.shape[1])),))
    options = {"signature": stated}
    answers = {"output": _own(module, known)}
    return Sample("torchscript", "model.pt", content, known.held, answers, 0, 1e-6, "torch", options)


def tensorflow(name: str, folder: Path) -> Sample:
    """The same as a SavedModel without variables, which is one file."""
    tf = import_tensorflow()
    known = table(name, np.float32)
    weights, shifts = _weights(known)
    held = [tf.constant(array.astype(np.float32)) for array in (weights.T, shifts)]

    def answer(x: Any) -> Any:
        scores = x @ held[0] + held[1]
        return {"scores": tf.nn.softmax(scores) if known.classes else scores}

    module = tf.Module()
    module.answer = tf.function(answer, input_signature=[tf.TensorSpec([None, known.seen.shape[1]], tf.float32, "x")])
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.answer)
    content = (folder / "saved" / "saved_model.pb").read_bytes()
    answers = {"scores": module.answer(tf.constant(known.held))["scores"].numpy()}
    return Sample("tensorflow", "saved_model.pb", content, known.held, answers, 0, 1e-6, "tensorflow")


def _layers(known: Table) -> Any:
    import torch

    weights, shifts = _weights(known)
    layer = torch.nn.Linear(weights.shape[1], weights.shape[0])
    layer.load_state_dict({"weight": torch.tensor(weights), "bias": torch.tensor(shifts)})
    return torch.nn.Sequential(layer, *([torch.nn.Softmax(dim=1)] if known.classes else [])).eval()


def _weights(known: Table) -> tuple[Array, Array]:
    """Of the linear model, a row for each class."""
    model = _linear(known)
    weights = np.atleast_2d(model.coef_ if known.classes != 2 else np.vstack([-model.coef_, model.coef_]) / 2)
    shifts = np.atleast_1d(model.intercept_ if known.classes != 2 else np.r_[-model.intercept_, model.intercept_] / 2)
    return weights, shifts


def _own(module: Any, known: Table) -> Array:
    import torch

    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(known.held)).numpy())


def _linear(known: Table) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    model = LogisticRegression(max_iter=5000) if known.classes else Ridge()
    return model.fit(known.seen, known.seen_target)


def _answers(model: Any, known: Table, value: str) -> dict[str, Array]:
    if not known.classes:
        return {value: np.asarray(model.predict(known.held))}
    return {"label": model.predict(known.held), "probabilities": model.predict_proba(known.held)}


SAMPLES: Mapping[str, Callable[[str, Path], Sample]] = {
    "stub": stub,
    "onnx": onnx,
    "sklearn": sklearn,
    "lightgbm": lightgbm,
    "xgboost-json": xgboost_json,
    "xgboost-ubj": xgboost_ubj,
    "torchscript": torchscript,
    "torch-export": torch_export,
    "tensorflow": tensorflow,
}
