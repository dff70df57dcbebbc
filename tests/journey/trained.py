"""The models of the journey: trained on real tables, or built small to show one thing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

OPSET = 17
IR_VERSION = 9
SLOW_ABOVE = 1000.0
"""The slow model multiplies matrices once for each 1 that its input is above this (about 0.2 ms each)."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier as ONNX, and rows that it never saw."""

    content: bytes
    rows: Any
    labels: Any

    @property
    def probabilities(self) -> Any:
        """What the model says of the rows, offline."""
        session = onnxruntime.InferenceSession(self.content, providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {"X": self.rows})[0]


@cache
def cancer(strength: float = 1.0) -> Classifier:
    """Breast cancer, 30 columns, logistic regression of this inverse regularisation."""
    from sklearn.datasets import load_breast_cancer

    return _classifier(*load_breast_cancer(return_X_y=True), strength)


@cache
def digits(strength: float = 1.0) -> Classifier:
    """Handwritten digits, 64 pixels, ten classes."""
    from sklearn.datasets import load_digits

    return _classifier(*load_digits(return_X_y=True), strength)


def _classifier(rows: Any, labels: Any, strength: float) -> Classifier:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, held, seen_labels, held_labels = train_test_split(rows, labels, test_size=0.3, random_state=0)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(seen, seen_labels)
    made = to_onnx(fitted, seen[:1].astype(np.float32), options={"zipmap": False}, target_opset=OPSET)
    return Classifier(made.SerializeToString(), held.astype(np.float32), held_labels)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "shown", inputs, outputs, constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _value(name: str, kind: int, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


@cache
def words() -> bytes:
    """Text in, the same text out."""
    text = TensorProto.STRING
    return _model(
        [helper.make_node("Identity", ["words"], ["same"])],
        [_value("words", text, "rows", 2)],
        [_value("same", text, "rows", 2)],
    )


@cache
def simple() -> bytes:
    """Sum and difference of whole numbers, as the protocol's client examples call it."""
    whole = TensorProto.INT64
    return _model(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [_value("INPUT0", whole, "rows", 16), _value("INPUT1", whole, "rows", 16)],
        [_value("OUTPUT0", whole, "rows", 16), _value("OUTPUT1", whole, "rows", 16)],
    )


@cache
def divide() -> bytes:
    """a / b: not a number and the infinities come out of 0/0, 1/0 and -1/0."""
    number = TensorProto.FLOAT
    return _model(
        [helper.make_node("Div", ["a", "b"], ["quotient"])],
        [_value("a", number, "rows", 1), _value("b", number, "rows", 1)],
        [_value("quotient", number, "rows", 1)],
    )


@cache
def slow() -> bytes:
    """x in, x out, after as many products of matrices as x is above SLOW_ABOVE; never fast enough for the loop."""
    number, whole, size = TensorProto.FLOAT, TensorProto.INT64, 200
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "weights"], ["next"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "turn",
        [_value("turn", whole), _value("go_in", TensorProto.BOOL), _value("held", number, size, size)],
        [_value("go_out", TensorProto.BOOL), _value("next", number, size, size)],
    )
    square = np.full((size, size), 1.0 / size, np.float32)
    constants = [
        helper.make_tensor("weights", number, square.shape, square.tobytes(), raw=True),
        helper.make_tensor("above", number, [], [SLOW_ABOVE]),
        helper.make_tensor("least", number, [], [20.0]),
        helper.make_tensor("nothing", number, [], [0.0]),
        helper.make_tensor("go", TensorProto.BOOL, [], [True]),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Sub", ["largest", "above"], ["more"]),
        helper.make_node("Max", ["more", "least"], ["turns_f"]),
        helper.make_node("Cast", ["turns_f"], ["turns"], to=whole),
        helper.make_node("Loop", ["turns", "go", "weights"], ["product"], body=body),
        helper.make_node("ReduceMax", ["product"], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "nothing"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    return _model(nodes, [_value("x", number, "rows", 1)], [_value("y", number, "rows", 1)], constants)


def infer_body(**tensors: Any) -> dict[str, Any]:
    """The Open Inference Protocol's JSON request of these arrays."""
    names = {"f": "FP32", "i": "INT64"}
    return {
        "inputs": [
            {"name": name, "shape": list(a.shape), "datatype": names[a.dtype.kind], "data": a.ravel().tolist()}
            for name, a in tensors.items()
        ]
    }
