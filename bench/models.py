"""The models that are measured, trained on real tables; the image model has fixed weights, only its work counts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Model(NamedTuple):
    """A file, its input's name, and rows of its input."""

    path: Path
    input: str
    rows: np.ndarray


def tree(folder: Path) -> Model:
    """Gradient boosting, 100 trees of depth 6 on 30 features (breast cancer)."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = load_breast_cancer(return_X_y=True)
    model = GradientBoostingClassifier(n_estimators=100, max_depth=6, random_state=0).fit(x, y)
    return _save(folder / "tree.onnx", to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}), x)


def mlp(folder: Path) -> Model:
    """A perceptron 784-1024-1024-10 (the digits, enlarged to 28 x 28)."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, y = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8), np.ones((1, 4, 4)))[:, 2:30, 2:30].reshape(-1, 784) / 16
    model = MLPClassifier((1024, 1024), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    return _save(folder / "mlp.onnx", to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}), x)


def image(folder: Path) -> Model:
    """A convolutional network of ResNet-18's stages (3 x 224 x 224 in, 1,000 out) on a crop of a real photograph."""
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    nodes, weights = [], []

    def convolve(source: str, name: str, shape: tuple[int, ...], stride: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), f"{name}.w"))
        pad = shape[2] // 2
        options = {"strides": [stride, stride], "pads": [pad] * 4, "kernel_shape": list(shape[2:])}
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [f"{name}.c"], **options))
        nodes.append(helper.make_node("Relu", [f"{name}.c"], [name]))
        return name

    at = convolve("image", "stem", (64, 3, 7, 7), 2)
    nodes.append(helper.make_node("MaxPool", [at], ["pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4))
    at, width = "pool", 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            inner = convolve(at, f"s{stage}b{block}a", (channels, width, 3, 3), stride)
            outer = convolve(inner, f"s{stage}b{block}b", (channels, channels, 3, 3), 1)
            if stride == 1 and width == channels:
                nodes.append(helper.make_node("Add", [outer, at], [f"s{stage}b{block}"]))
                outer = f"s{stage}b{block}"
            at, width = outer, channels
    weights.append(numpy_helper.from_array((random.standard_normal((512, 1000)) / 30).astype(np.float32), "fc.w"))
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "fc.w"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1000])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    photograph = load_sample_image("china.jpg")[100:324, 200:424].transpose(2, 0, 1)[None] / 255
    return _save(folder / "image.onnx", proto, photograph)


def _save(path: Path, proto: object, x: np.ndarray) -> Model:
    path.write_bytes(proto.SerializeToString())  # type: ignore[attr-defined]
    return Model(path, proto.graph.input[0].name, np.round(x[:100], 4))  # type: ignore[attr-defined]
