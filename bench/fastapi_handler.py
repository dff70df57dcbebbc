"""What one would write by hand: FastAPI and ONNX Runtime, no keys, no limits, no log."""

import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

options = ort.SessionOptions()
options.intra_op_num_threads = 1
paths = (sys.argv[1], *sys.argv[3:])
sessions = [ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths]
session = sessions[0]
name = session.get_inputs()[0].name
outputs = [output.name for output in session.get_outputs()]
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    body = orjson.loads(await request.body())
    tensor = body["inputs"][0]
    x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    results = session.run(outputs, {name: x})
    answer = {
        "outputs": [{"name": n, "shape": y.shape, "data": y.ravel()} for n, y in zip(outputs, results, strict=True)]
    }
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
