"""Trains what the examples serve: two versions of an iris classifier, as ONNX with the names of columns and classes.

`python train.py [FOLDER]` writes `iris-1/` (logistic regression) and `iris-2/` (random forest) into it.
Needs `pip install 'modelyard[demo]'`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    """Writes both versions, each with the accuracy on rows that it never saw."""
    table = load_iris()
    rows = table.data.astype(np.float32)
    seen, held, seen_labels, held_labels = train_test_split(rows, table.target, test_size=0.3, random_state=0)
    columns = [name.removesuffix(" (cm)").replace(" ", "_") for name in table.feature_names]
    for version, model in enumerate((LogisticRegression(max_iter=500), RandomForestClassifier(50, random_state=0)), 1):
        model.fit(seen, seen_labels)
        into = folder / f"iris-{version}"
        into.mkdir(parents=True, exist_ok=True)
        onnx = to_onnx(model, seen[:1], options={"zipmap": False}, target_opset=17)
        (into / "model.onnx").write_bytes(onnx.SerializeToString())
        accuracy = float(model.score(held, held_labels))
        about = {"columns": columns, "labels": list(table.target_names), "metrics": {"accuracy": accuracy}}
        (into / "modelyard.json").write_text(json.dumps(about))
        print(f"{into}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
