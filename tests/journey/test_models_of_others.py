"""Models that nobody here wrote, out of the packages of others: published, served, as their packages answer."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import magika
import numpy as np
import pytest
import silero_vad
from magika.types.seekable import Seekable
from server import RunningServer, until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3"
SILERO = Path(silero_vad.__file__).parent / "data"
RATE, CHUNK, CONTEXT = 16_000, 512, 64


def _publish(server: RunningServer, model: str, file: Path, said: dict[str, Any]) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("model.onnx", file.read_bytes()), ("modelyard.json", json.dumps(said).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    headers = {"content-type": "application/x-tar"}
    reply = server.ask("POST", f"/v1/models/{model}/versions", archive.getvalue(), headers=headers)
    assert reply.status == 201, reply.body


def _tensor(name: str, array: Any) -> dict[str, Any]:
    datatype = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}[str(array.dtype)]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def _infer(server: RunningServer, key: str, model: str, **tensors: Any) -> dict[str, Any]:
    body = {"inputs": [_tensor(name, array) for name, array in tensors.items()]}

    def answered() -> Any:
        """None while a worker still loads it: a publish waits for that only so long (decision 0007)."""
        reply = server.ask("POST", f"/v2/models/{model}/infer", body, key=key)
        assert reply.status in (200, 404, 503), reply.body
        return reply if reply.status == 200 else None

    reply = until(answered, 20, f"{model} being loaded")
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in reply.json["outputs"]}


def _files() -> list[bytes]:
    """Files of many kinds: of this repository, and of the packages around it."""
    named = (
        "README.md", "pyproject.toml", "Makefile", "docs/journey.svg", "bench/results/latency.png", "infra/main.tf",
        "src/modelyard/core/types.py", "bench/results/latest.json", "constraints.txt", "docs/reference/settings.md",
    )  # fmt: skip
    found = [(ROOT / name).read_bytes() for name in named]
    rows = b"age,bmi,label\n" + b"".join(b"%d,%d.5,no\n" % (i, i % 40) for i in range(200))
    return [*found, rows, (MAGIKA / "model.onnx").read_bytes()[:20_000]]


def test_a_detector_of_file_types(server: RunningServer, client_key: str) -> None:
    """Magika (Google): 214 classes from 2,048 bytes. Each file's type, by the class names that its configuration has,
    is what its own package says, and every score is the package's."""
    own = magika.Magika()
    labels = json.loads((MAGIKA / "config.min.json").read_text())["target_labels_space"]
    _publish(server, "filetype", MAGIKA / "model.onnx", {"labels": labels})
    config, files = own._model_config, _files()
    features = [
        own._extract_features_from_seekable(
            Seekable(io.BytesIO(content)), config.beg_size, config.mid_size, config.end_size, config.padding_token,
            config.block_size, config.use_inputs_at_offsets,
        )
        for content in files
    ]  # fmt: skip
    rows = np.array([[*each.beg, *each.end] for each in features], np.int32)
    served = _infer(server, client_key, "filetype", bytes=rows)["target_label"]
    expected = own._get_raw_predictions([(Path("-"), each) for each in features])
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
    results = [own.identify_bytes(content) for content in files]
    assert [labels[at] for at in served.argmax(axis=1)] == [str(one.dl.label) for one in results]
    assert len({str(one.dl.label) for one in results}) >= 8
    # The package asks file by file; twelve at once are added up in another order.
    np.testing.assert_allclose(served.max(axis=1), [one.score for one in results], atol=1e-3)


def _sound(seconds: float = 2.0) -> Any:
    """A voice-like sound: harmonics of a gliding pitch that comes and goes, and noise."""
    draw = np.random.default_rng(5)
    time_s = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.5 * time_s)) / RATE
    voice = sum(np.sin(n * phase) / n for n in range(1, 25)) * (np.sin(2 * np.pi * 1.1 * time_s) > 0)
    return (0.2 * voice + 0.01 * draw.standard_normal(len(time_s))).astype(np.float32)


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_op18_ifless.onnx"])
def test_a_detector_of_voices(server: RunningServer, client_key: str, name: str) -> None:
    """Silero VAD: a recurrent network whose state travels with each request, with a scalar among its inputs, and in
    one of its forms graphs within graphs. Chunk after chunk the probability is the package's own."""
    import torch
    from silero_vad.utils_vad import OnnxWrapper

    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(RATE, np.int64)
    example = {"inputs": [_tensor("input", np.zeros((1, CONTEXT + CHUNK), np.float32)), _tensor("state", state),
                          _tensor("sr", rate)]}  # fmt: skip
    model = name.removesuffix(".onnx").replace("_", "-")
    _publish(server, model, SILERO / name, {"example": example})
    own = OnnxWrapper(str(SILERO / name), force_onnx_cpu=True)
    sound, context, found = _sound(), np.zeros((1, CONTEXT), np.float32), []
    for begin in range(0, len(sound) - CHUNK, CHUNK):
        chunk = sound[None, begin : begin + CHUNK]
        given = np.concatenate([context, chunk], axis=1)
        served = _infer(server, client_key, model, input=given, state=state, sr=rate)
        found.append((served["output"].item(), own(torch.from_numpy(chunk), RATE).item()))
        state, context = served["stateN"].astype(np.float32), given[:, -CONTEXT:]
    ours, theirs = np.array(found).T
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert theirs.max() - theirs.min() > 0.1
