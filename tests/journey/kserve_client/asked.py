"""Run by the environment that has kserve: asks the server as KServe's own client does, prints what came as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

MODEL = "cancer"


def asked(rows: Any, binary: bool, **more: Any) -> InferRequest:
    tensor = InferInput("X", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="a-b", **more)


def shown(answer: Any) -> dict[str, Any]:
    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    return {"model": answer.model_name, "id": answer.id, "outputs": outputs}


async def refusal(call: Any) -> dict[str, Any]:
    """What the caller reads of an error."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return {"status": error.response.status_code, "text": str(error)}
    return {"status": 0, "text": "no error"}


async def v2(base: str, key: dict[str, str], rows: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        said["live"] = await client.is_server_live(base)
        said["ready"] = await client.is_server_ready(base)
        said["model ready"] = await client.is_model_ready(base, MODEL, headers=key)
        said["no model ready"] = await client.is_model_ready(base, "none", headers=key)
        for name, binary, more in (
            ("json", False, {}),
            ("binary in", True, {}),
            ("binary out", False, {"parameters": {"binary_data_output": True}}),
            ("binary", True, {"parameters": {"binary_data_output": True}}),
            ("one output", True, {"request_outputs": [RequestedOutput("probabilities", {"binary_data": True})]}),
        ):
            # A new one each time: the client writes its own fields into the caller's dictionary.
            answer = await client.infer(base, asked(rows, binary, **more), MODEL, headers=dict(key))
            said[name] = shown(answer)
        wrong = asked(rows[:, :5], False)
        said["wrong shape"] = await refusal(client.infer(base, wrong, MODEL, headers=dict(key)))
        said["no key"] = await refusal(client.infer(base, asked(rows, False), MODEL))
        said["no model"] = await refusal(client.infer(base, asked(rows, False), "none", headers=dict(key)))
    return said


async def v1(base: str, key: dict[str, str], rows: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        said["live"] = await client.is_server_live(base)
        said["model ready"] = await client.is_model_ready(base, MODEL, headers=key)
        said["instances"] = await client.infer(base, {"instances": rows.tolist()}, MODEL, headers=dict(key))
        said["columns"] = await client.infer(base, {"inputs": {"X": rows.tolist()}}, MODEL, headers=dict(key))
        said["wrong shape"] = await refusal(client.infer(base, {"instances": [[1]]}, MODEL, headers=dict(key)))
        said["no model"] = await refusal(client.is_model_ready(base, "none", headers=key))
    return said


async def main(base: str, text: str) -> None:
    given = json.loads(text)
    rows, key = np.array(given["rows"], np.float32), {"x-api-key": given["key"]}
    print(json.dumps({"v2": await v2(base, key, rows), "v1": await v1(base, key, rows)}))


asyncio.run(main(sys.argv[1], sys.stdin.read()))
