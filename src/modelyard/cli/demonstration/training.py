"""Two classifiers in two versions each, trained here on real tables, and what they say offline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import CommandError
from modelyard.core.types import Array

HELD_OUT = 0.3
"""The share of the rows that no version sees in training; every one of them is predicted."""
SEED = 0
NEEDED = {"sklearn": "scikit-learn", "skl2onnx": "skl2onnx"}
"""Package by module."""
INSTALL = "pip install 'modelyard[demo]'"


@dataclass(frozen=True, eq=False)
class Lesson:
    """One trained version; equal to itself alone. `offline` are scikit-learn's own labels for `rows` (FP32), `truth`
    the table's."""

    model: str
    version: str
    algorithm: str
    onnx: bytes
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    rows: Array
    truth: Array
    offline: Array

    @property
    def accuracy(self) -> float:
        """Of the offline labels, 0 to 1."""
        return float(np.mean(self.offline == self.truth))

    def write(self, folder: Path) -> Path:
        """The version as a folder to publish: the model, and `modelyard.json` with names, metrics and an example."""
        place = folder / f"{self.model}-{self.version}"
        place.mkdir()
        (place / "model.onnx").write_bytes(self.onnx)
        about = {
            "columns": self.columns,
            "labels": self.labels,
            "metrics": {"accuracy": self.accuracy, "held_out_rows": len(self.rows)},
            "example": {"inputs": [tensor_json("X", self.rows[:1])]},
            "provenance": {"algorithm": self.algorithm},
        }
        (place / "modelyard.json").write_text(json.dumps(about))
        return place


def tensor_json(name: str, array: Array) -> dict[str, Any]:
    """An FP32 array as the Open Inference Protocol's JSON tensor."""
    return {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}


def check_installed() -> None:
    """CommandError("usage_invalid") with the command that installs what is missing."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise CommandError(
            "usage_invalid", f"The demo trains its models, which needs {' and '.join(missing)}: {INSTALL}"
        )


def lessons(done: Callable[[int], None]) -> tuple[Lesson, ...]:
    """The four versions, trained; `done` is told of each. The same on every run: all seeds are fixed."""
    import sklearn.linear_model  # noqa: F401 - brings the libraries whose threads are limited below
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    made = []
    with threadpool_limits(1):  # the matrices are small: threads that wait for each other cost more than they bring
        for lesson in (*_cancer(), *_digits()):
            made.append(lesson)
            done(1)
    return tuple(made)


def _cancer() -> Iterator[Lesson]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    table = load_breast_cancer()
    columns = tuple(name.replace(" ", "_") for name in table.feature_names)
    labels = tuple(str(name) for name in table.target_names)
    first = _scaled(LogisticRegression(C=0.005))
    yield _lesson("cancer", "1", "logistic regression", first, table, columns, labels)
    forest = RandomForestClassifier(n_estimators=60, max_depth=8, random_state=SEED)
    yield _lesson("cancer", "2", "random forest", forest, table, columns, labels)


def _digits() -> Iterator[Lesson]:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    table = load_digits()
    columns = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    labels = tuple(str(name) for name in table.target_names)
    first = _scaled(LogisticRegression(C=0.01, max_iter=500))
    yield _lesson("digits", "1", "logistic regression", first, table, columns, labels)
    network = _scaled(MLPClassifier((64,), max_iter=400, random_state=SEED))
    yield _lesson("digits", "2", "neural network", network, table, columns, labels)


def _scaled(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def _lesson(
    model: str,
    version: str,
    algorithm: str,
    estimator: Any,
    table: Any,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
) -> Lesson:
    from skl2onnx import to_onnx
    from sklearn.model_selection import train_test_split

    data = table.data.astype(np.float32)
    seen, rows, seen_truth, truth = train_test_split(
        data, table.target, test_size=HELD_OUT, random_state=SEED, stratify=table.target
    )
    estimator.fit(seen, seen_truth)
    onnx = to_onnx(estimator, seen[:1], options={"zipmap": False}, target_opset=17).SerializeToString()
    return Lesson(model, version, algorithm, onnx, columns, labels, rows, truth, estimator.predict(rows))
