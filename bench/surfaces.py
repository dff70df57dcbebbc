"""One row by every surface, side by side at 64 connections; and what an Idempotency-Key costs at one connection."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.bodies import Body
from bench.load import Measured, measure
from bench.models import Model
from bench.servers import modelyard, published

OIP = "Open Inference Protocol"
JSON = "application/json"
KEYED = """
local begun, count = os.time() .. tostring({}):sub(8), 0
request = function()
  count = count + 1
  wrk.headers["idempotency-key"] = begun .. "-" .. count
  return wrk.format()
end
"""
"""For wrk: every request has a key of its own, so that none is a retry."""


class Surface(NamedTuple):
    """Where a body goes, what it is and its bytes."""

    path: str
    content_type: str
    text: str


def surfaces(model: Model, columns: list[str]) -> dict[str, Surface]:
    """One row of the model in every form, the Open Inference Protocol's first."""
    row = model.rows[0].tolist()
    named = dict(zip(columns, row, strict=True))
    item = {"name": model.input, "shape": [1, len(row)], "datatype": "FP32", "data": row}
    bodies: dict[str, tuple[str, object]] = {
        OIP: ("/v2/models/m/infer", {"inputs": [item]}),
        ":predict, rows": ("/v1/models/m:predict", {"instances": [row]}),
        ":predict, columns": ("/v1/models/m:predict", {"inputs": [row]}),
        ":predict, named rows": ("/v1/models/m/versions/1:predict", {"instances": [named]}),
        "/invocations, dataframe_split": ("/invocations", {"dataframe_split": {"columns": columns, "data": [row]}}),
        "/invocations, dataframe_records": ("/invocations", {"dataframe_records": [named]}),
        "/invocations, instances": ("/invocations", {"instances": [row]}),
        "/invocations, inputs": ("/invocations", {"inputs": [row]}),
        "/v1 predictions": ("/v1/models/m/predictions", {"items": [named]}),
    }
    found = {
        name: Surface(path, JSON, json.dumps(body, separators=(",", ":"))) for name, (path, body) in bodies.items()
    }
    cells = ",".join(map(repr, row))
    found["/invocations, CSV"] = Surface("/invocations", "text/csv", f"{','.join(columns)}\n{cells}\n")
    return found


def measured(
    model: Model, folder: Path, passes: int, seconds: float, only: str = ""
) -> dict[str, dict[str, list[Measured]]]:
    """case -> surface -> passes, each on a server and a data folder of its own, surfaces taking turns."""
    columns = [f"feature_{number}" for number in range(len(model.rows[0]))]
    data, key = _published(model, columns, folder)
    every = {name: one for name, one in surfaces(model, columns).items() if name == OIP or only in name}
    found: dict[str, dict[str, list[Measured]]] = {}

    def once(case: str, name: str, surface: Surface, connections: int, more: str = "") -> None:
        copy = Path(shutil.copytree(data, folder / "data-surface"))
        path = folder / "surface"
        path.write_text(surface.text)
        with modelyard(copy, key) as target:
            there = replace(target, url=target.url.removesuffix("/v2/models/m/infer") + surface.path)
            body = Body(path, {"content-type": surface.content_type})
            done = measure(there, body, connections, seconds, folder, more)
        shutil.rmtree(copy)
        found.setdefault(case, {}).setdefault(name, []).append(done)

    for _ in range(passes):
        for name, surface in every.items():
            once("1 row, 64 connections", name, surface, 64)
        once("1 row, 1 connection", OIP, every[OIP], 1)
        once("1 row, 1 connection", "with an Idempotency-Key", every[OIP], 1, KEYED)
    return found


def _published(model: Model, columns: list[str], folder: Path) -> tuple[Path, str]:
    """A data folder with the model under the names of its columns, and its client's key."""
    named = folder / "named"
    named.mkdir()
    shutil.copy(model.path, named / "model.onnx")
    (named / "modelyard.json").write_text(json.dumps({"columns": columns}))
    data = folder / "data-named"
    return data, published(data, {"m": named})
