"""The requests that are sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.models import Model


class Body(NamedTuple):
    """A body in a file, and the header fields that go with it."""

    path: Path
    headers: dict[str, str]


def as_json(model: Model, count: int, folder: Path) -> Body:
    """So many rows as an Open Inference Protocol request, the numbers flat."""
    rows = model.rows[:count]
    item = {"name": model.input, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return _write(folder / f"{model.path.stem}-{count}.json", json.dumps({"inputs": [item]}, separators=(",", ":")))


def as_binary(model: Model, count: int, folder: Path) -> Body:
    """The same with the binary tensor extension."""
    blob = model.rows[:count].astype(np.float32).tobytes()
    item = {
        "name": model.input,
        "shape": list(model.rows[:count].shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(blob)},
    }
    head = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    path = folder / f"{model.path.stem}-{count}.bin"
    path.write_bytes(head + blob)
    return Body(
        path,
        {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
    )


def _write(path: Path, text: str) -> Body:
    path.write_text(text)
    return Body(path, {"content-type": "application/json"})


def as_http(url: str, headers: dict[str, str], content: bytes) -> bytes:
    """The whole POST request, for clients of our own."""
    fields = {"host": "a", **headers, "content-length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /{url.split('/', 3)[3]} HTTP/1.1\r\n{head}\r\n".encode() + content
