"""Every datatype of the Open Inference Protocol in random shapes (Z6): an answer out of a batch, an answer alone and
the runtime itself agree to the last bit, as JSON and as binary tensors."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from modelyard.core.settings import BatchingSettings, Settings
from modelyard.core.types import DATATYPES
from modelyard.models.manifest import Manifest
from modelyard.runtimes.onnx import OnnxRuntime
from modelyard.testing import servable

sys.path.insert(0, str(Path(__file__).parent.parent / "contract"))

from http_worker import HttpWorker
from raw_http import Caller, Reply, request

SEED = 20_261_128
TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
ALPHABET = 'aZ0 \\"\n\t\x00äß€𝄞'


def twice(datatype: str, folder: Path) -> Path:
    """A model of this type whose y holds each row of x (rows, any, any), then the row once more."""
    values = [helper.make_tensor_value_info(name, TYPES[datatype], ["rows", None, None]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Concat", ["x", "x"], ["y"], axis=2)], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.fixture(params=[True, False], ids=["on-the-loop", "in-the-executor"])
def in_loop(request: pytest.FixtureRequest) -> bool:
    """Where the model runs."""
    return bool(request.param)


@pytest.fixture(params=list(TYPES))
def served(request: pytest.FixtureRequest, in_loop: bool, tmp_path: Path) -> Iterator[tuple[HttpWorker, str, Any]]:
    """A worker with the model of one type, the type, and the runtime's own session."""
    path = twice(request.param, tmp_path)
    runtime = OnnxRuntime()
    found = runtime.inspect(tmp_path, "model.onnx", {})
    loaded = runtime.load(tmp_path, Manifest("onnx", "model.onnx", (), found.signature), {"threads": 1})
    settings = Settings(batching=BatchingSettings(max_loop_run_us=1e9))
    worker = HttpWorker(settings, [servable(loaded, in_loop=in_loop)]).start()
    yield worker, request.param, onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    Caller.close_all()
    worker.stop()


def values(datatype: str, shape: tuple[int, ...], chance: np.random.Generator) -> np.ndarray[Any, Any]:
    """Values over the whole range of a type, its ends among them; no NaN, which is not equal to itself."""
    size, kind = int(np.prod(shape)), DATATYPES[datatype]
    if datatype == "BYTES":
        texts = ["".join(chance.choice(list(ALPHABET), int(n))) for n in chance.integers(0, 12, size)]
        return np.array([text.encode() for text in texts], dtype=object).reshape(shape)
    if datatype == "BOOL":
        return chance.integers(0, 2, shape).astype(bool)
    if kind.kind == "f":
        raw = chance.integers(0, 256, size * kind.itemsize, dtype=np.uint8).view(kind)
        return np.where(np.isfinite(raw), raw, kind.type(0.1)).astype(kind).reshape(shape)
    ends = np.array([np.iinfo(kind).min, np.iinfo(kind).max, 0, 1], dtype=kind)
    return np.where(
        chance.random(shape) < 0.3, chance.choice(ends, shape), chance.integers(*_range(kind), shape, dtype=kind)
    )


def _range(kind: np.dtype[Any]) -> tuple[int, int]:
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


def packed(array: np.ndarray[Any, Any]) -> bytes:
    """A tensor as the binary extension has it."""
    if array.dtype == object:
        return b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
    return array.tobytes()


def asked(key: str, datatype: str, x: np.ndarray[Any, Any], binary_in: bool, binary_out: bool) -> bytes:
    """A request for this tensor."""
    tensor: dict[str, Any] = {"name": "x", "shape": list(x.shape), "datatype": datatype}
    document: dict[str, Any] = {"inputs": [tensor], "parameters": {"binary_data_output": binary_out}}
    target = "/v2/models/tree/infer"
    if not binary_in:
        tensor["data"] = [v.decode() for v in x.ravel()] if x.dtype == object else x.ravel().tolist()
        return request(target, json.dumps(document), key=key)
    data = packed(x)
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps(document).encode()
    headers = [f"inference-header-content-length: {len(head)}", "content-type: application/octet-stream"]
    return request(target, head + data, key=key, headers=headers)


def told(reply: Reply) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes of the answer's tensor."""
    assert reply.status == 200, reply.body[:500]
    length = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    (tensor,) = json.loads(reply.body[:length])["outputs"]
    if "data" not in tensor:
        return tensor["datatype"], tuple(tensor["shape"]), reply.body[length:]
    kind = DATATYPES[tensor["datatype"]]
    if kind.hasobject:
        array = np.array([text.encode() for text in tensor["data"]], dtype=object)
    else:
        array = np.array(tensor["data"], dtype=kind)
    return tensor["datatype"], tuple(tensor["shape"]), packed(array)


def offline(session: Any, x: np.ndarray[Any, Any]) -> tuple[tuple[int, ...], bytes]:
    """What the runtime itself says."""
    given = np.vectorize(lambda item: item.decode(), otypes=[object])(x) if x.dtype == object else x
    (y,) = session.run(None, {"x": given})
    if y.dtype == object:
        y = np.vectorize(lambda item: item.encode() if isinstance(item, str) else item, otypes=[object])(y)
    return tuple(y.shape), packed(y)


@pytest.mark.parametrize("rounds", [3, pytest.param(300, marks=pytest.mark.long)])
def test_batched_alone_and_offline_agree(served: tuple[HttpWorker, str, Any], rounds: int) -> None:
    """Callers of one turn with random rows of one of two shapes, then each of them alone: one and the same answer, the
    runtime's; seeded."""
    worker, datatype, session = served
    chance = np.random.default_rng([SEED, list(TYPES).index(datatype)])
    forms = random.Random(SEED)
    for _ in range(rounds):
        shapes = [tuple(int(n) for n in chance.integers(1, 5, 2)) for _ in range(2)]
        xs = [values(datatype, (int(chance.integers(1, 6)), *forms.choice(shapes)), chance) for _ in range(6)]
        always = datatype == "FP16"  # which cannot travel as JSON
        texts = [asked(worker.key, datatype, x, *(always or forms.random() < 0.5 for _ in "io")) for x in xs]
        callers = [Caller(worker.port) for _ in xs]
        held, release = threading.Event(), threading.Event()
        worker.loop.call_soon_threadsafe(lambda h=held, r=release: (h.set(), r.wait(10)))
        assert held.wait(10)
        for caller, text in zip(callers, texts, strict=True):
            caller.send(text)
        release.set()
        together = [told(caller.reply()) for caller in callers]
        for caller, text, x, answer in zip(callers, texts, xs, together, strict=True):
            caller.send(text)
            assert told(caller.reply()) == answer
            assert answer == (datatype, *offline(session, x))
        Caller.close_all()
