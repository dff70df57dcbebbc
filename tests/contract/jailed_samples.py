"""Models that are programs, of real tables, with their library's own answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from runtime_samples import Sample, _answers, _linear, table  # type: ignore[import-not-found]

from modelyard.models.report import SignatureCompletion, TensorCompletion

CLASS = """
import json
import numpy as np

class Linear:
    def load(self, folder):
        known = json.loads((folder / "weights.json").read_text())
        self.weights, self.shifts, self.classes = (np.asarray(known[name]) for name in ("w", "b", "classes"))

    def predict(self, inputs):
        scores = inputs["X"] @ self.weights.T + self.shifts
        if not len(self.classes):
            return {"value": scores}
        if scores.ndim == 1:
            scores = np.stack([-scores / 2, scores / 2], axis=1)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return {
            "label": self.classes[scores.argmax(axis=1)],
            "probabilities": powers / powers.sum(axis=1, keepdims=True),
        }
"""
WRITERS = {"iris": "cloudpickle", "diabetes": "joblib"}
"""Who pickles the model of which table."""


def pickled(name: str, folder: Path) -> Sample:
    """A linear model, as one of three libraries pickles it."""
    import cloudpickle
    import joblib

    known = table(name)
    model = _linear(known)
    joblib.dump(model, folder / "saved", compress=3)
    written = {"joblib": (folder / "saved").read_bytes(), "cloudpickle": cloudpickle.dumps(model)}
    content = written[WRITERS[name]]
    return Sample("pickle", "model.pkl", content, known.held, _answers(model, known, "value"), known.classes)


def python(name: str, folder: Path) -> Sample:
    """The same model as a class of its owner's."""
    known = table(name)
    model = _linear(known)
    weights = model.coef_[0] if len(np.atleast_2d(model.coef_)) == 1 and known.classes else model.coef_
    shifts = model.intercept_[0] if known.classes == 2 else model.intercept_
    classes = list(range(known.classes))
    said = {"w": np.asarray(weights).tolist(), "b": np.asarray(shifts).tolist(), "classes": classes}
    (folder / "weights.json").write_text(json.dumps(said))
    (folder / "linear.py").write_text(CLASS)
    width = known.held.shape[1]
    outputs = [TensorCompletion("value", "FP64", (-1,))]
    if known.classes:
        labels = tuple(map(str, classes))
        outputs = [TensorCompletion("label", "INT64", (-1,)),
                   TensorCompletion("probabilities", "FP64", (-1, known.classes), labels=labels)]  # fmt: skip
    stated = SignatureCompletion((TensorCompletion("X", "FP64", (-1, width)),), tuple(outputs))
    answers = _answers(model, known, "value")
    content = json.dumps({"python_class": "linear:Linear"}).encode()
    return Sample("python", "named.json", content, known.held, answers, known.classes, 1e-9, "", {"signature": stated})
