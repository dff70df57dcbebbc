"""The same model behind MLServer, as a custom runtime; runs in MLServer's own environment."""

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

options = ort.SessionOptions()
options.intra_op_num_threads = 1


class OnnxRuntime(MLModel):
    """One ONNX session."""

    async def load(self) -> bool:
        self._session = ort.InferenceSession(self._settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        self._feed = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        results = self._session.run(self._names, {self._feed: x})
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, y) for name, y in zip(self._names, results, strict=True)],
        )
