"""The same model behind BentoML, as its documentation has it; runs in BentoML's own environment."""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1


@bentoml.service(workers=1, metrics={"enabled": False})
class Predict:
    """One ONNX session."""

    def __init__(self) -> None:
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    @bentoml.api
    def predict(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        tensor = inputs[0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        outputs = self.session.run(None, {self.name: x})
        return {"outputs": [{"shape": list(y.shape), "data": y.ravel().tolist()} for y in outputs]}
