"""The models that are measured, trained on real tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def tree(folder: Path) -> tuple[Path, str, list[list[float]]]:
    """Gradient boosting, 100 trees of depth 6 on 30 features (breast cancer): file, input name, rows."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = load_breast_cancer(return_X_y=True)
    model = GradientBoostingClassifier(n_estimators=100, max_depth=6, random_state=0).fit(x, y)
    return _save(folder / "tree.onnx", to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}), x)


def mlp(folder: Path) -> tuple[Path, str, list[list[float]]]:
    """A perceptron 784-1024-1024-10 (the digits, enlarged to 28 x 28): file, input name, rows."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, y = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8), np.ones((1, 4, 4)))[:, 2:30, 2:30].reshape(-1, 784) / 16
    model = MLPClassifier((1024, 1024), max_iter=3, random_state=0)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    return _save(folder / "mlp.onnx", to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}), x)


def _save(path: Path, proto: object, x: np.ndarray) -> tuple[Path, str, list[list[float]]]:
    path.write_bytes(proto.SerializeToString())  # type: ignore[attr-defined]
    return path, proto.graph.input[0].name, np.round(x[:100], 4).tolist()  # type: ignore[attr-defined]
