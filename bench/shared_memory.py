"""`python -m bench.shared_memory`: a large artifact behind several workers, where its memory is, what the hop costs.

The model is made on the fly: equal layers of a dense network, weights drawn by a seed, as ONNX with external data. The
memory is the proportional set size of every process of the server (proc(5), smaps_rollup), after each worker answered.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from bench.hop import Call, hops
from bench.servers import Target, modelyard, published
from modelyard.core.settings import load_settings
from modelyard.models.manifest import Manifest
from modelyard.models.report import jail_bounds
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.shared.runtime import Meeting, SharedRuntimes

COLUMNS, WIDTH = 16, 4096
LAYER_BYTES = 4 * WIDTH * WIDTH
WEIGHTS = "weights.bin"
GIB, MIB = 1024**3, 1024**2
ROLES = {b"entry.worker": "worker", b"entry.drain": "drain", b"shared.host": "shared process", b"serve": "parent"}
ANSWER_S = 120


def make_model(folder: Path, size_bytes: int, seed: int = 7) -> int:
    """A folder with `model.onnx` and its weights, at least so large; its size in bytes."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    nodes, weights, at = [], [], 0
    shapes = [(COLUMNS, WIDTH), *[(WIDTH, WIDTH)] * -(-size_bytes // LAYER_BYTES), (WIDTH, 1)]
    with (folder / WEIGHTS).open("wb") as file:
        for number, shape in enumerate(shapes):
            layer = draw.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
            file.write(layer.tobytes())
            weights.append(_external(f"w{number}", shape, at, layer.nbytes))
            at += layer.nbytes
            nodes.append(helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"m{number}"]))
            nodes.append(helper.make_node("Tanh", [f"m{number}"], [f"h{number + 1}"]))
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c]) for n, c in (("x", COLUMNS), ("y", 1))]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return at


def _external(name: str, shape: tuple[int, ...], offset: int, length: int) -> Any:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def processes(pid: int) -> list[tuple[int, str, dict[str, float]]]:
    """A process and all its descendants: number, role, and MiB of PSS by kind."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes()
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        kinds = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup if line.startswith("Pss")}
        found.append((one, next((role for part, role in ROLES.items() if part in command), "other"), kinds))
    return sorted(found)


def predict(target: Target, rows: Any) -> list[float]:
    """One request; its outputs."""
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    headers = {**target.headers, "content-type": "application/json"}
    request = urllib.request.Request(target.url, json.dumps({"inputs": [tensor]}).encode(), headers)
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        found: list[float] = json.load(answer)["outputs"][0]["data"]
    return found


def measure(folder: Path, size_bytes: int, workers: int, shared: bool, console: Console) -> float:
    """Publishes, serves, asks until every worker answered; prints each process and gives the sum of PSS in MiB."""
    data = folder / f"data-{shared}"
    key = published(data, {"m": folder / "model"})
    rows = np.random.default_rng(1).standard_normal((4, COLUMNS), np.float32)
    session = onnxruntime.InferenceSession(str(folder / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": rows})[0].ravel()
    del session
    settings = {} if shared else {"MODELYARD_MODELS__SHARED_FROM_BYTES": "0"}
    begun = time.monotonic()
    with modelyard(data, key, settings, workers, "0,1") as target:
        until_s = time.monotonic() + ANSWER_S
        while not _all_ready(data, workers) and time.monotonic() < until_s:
            time.sleep(0.2)
        ready_s = time.monotonic() - begun
        for _ in range(4 * workers):  # each on a connection of its own: every worker has its turn
            np.testing.assert_allclose(predict(target, rows), expected, rtol=1e-4, atol=1e-5)
        found = processes(target.pid)
    table = Table("Process", "Role", "PSS", "of it private", "files", "shared memory (MiB)", box=None)
    for pid, role, kinds in found:
        parts = (kinds[name] for name in ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem"))
        table.add_row(str(pid), role, *(f"{part:,.0f}" for part in parts))
    total = sum(kinds["Pss"] for _, _, kinds in found)
    how = "one shared process" if shared else "each worker"
    console.print(f"\n{size_bytes / GIB:.2f} GiB, {workers} workers, held by {how}: all ready after {ready_s:.0f} s")
    console.print(table)
    console.print(f"Sum of PSS: {total:,.0f} MiB, {total * MIB / size_bytes:.2f} times the artifact")
    return total


def _all_ready(data: Path, workers: int) -> bool:
    from modelyard.http.processes.board import SLOTS, Board, WorkerState

    board = Board(data / "board")
    try:
        return sum(board.state(slot) == WorkerState.READY for slot in range(SLOTS)) == workers
    finally:
        board.close()


def overhead(folder: Path, runs: int, console: Console) -> None:
    """Prints what a call costs through the shared process, beside the same model in this one."""
    small = folder / "small"
    small.mkdir()
    weights = helper.make_tensor("w", TensorProto.FLOAT, (30, 2), np.ones(60, np.float32))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c]) for n, c in (("x", 30), ("y", 2))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "small", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), small / "model.onnx")
    signature = RUNTIMES["onnx"].inspect(small, "model.onnx", {}).signature
    manifest = Manifest("onnx", "model.onnx", tuple(hash_folder(small, GIB)), signature)
    settings = load_settings(**{"workers": 2, "models.shared_from_bytes": 1})
    options = {"threads": 1, "jail": jail_bounds(settings.models)}
    own = RUNTIMES["onnx"].load(small, manifest, options)
    runtimes = SharedRuntimes(RUNTIMES, settings, Meeting(folder / "run", 1, os.getpid(), 1.0))
    through = runtimes["onnx"].load(small, manifest, options)

    def calls(rows: int) -> tuple[Call, Call]:
        given = {"x": np.ones((rows, 30), np.float32)}
        return partial(own.run, given, ()), partial(through.run, given, ())

    table = hops(calls, runs, "In the worker", "Shared")
    through.close()
    console.print("\nThe hop, with a small model of 30 columns:")
    console.print(table)


def main() -> None:
    """Prints the memory with one copy, if asked for with one a worker too, and the cost of a call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.2, help="size of the artifact")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5000, help="calls for the cost of the hop")
    parser.add_argument("--compare", action="store_true", help="also with one copy a worker: takes that memory")
    asked = parser.parse_args()
    os.environ["MODELYARD_MODELS__PUBLISH_MEMORY_BYTES"] = str(64 * GIB)
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as made:
        folder = Path(made)
        size_bytes = make_model(folder / "model", int(asked.gib * GIB))
        measure(folder, size_bytes, asked.workers, True, console)
        if asked.compare:
            measure(folder, size_bytes, asked.workers, False, console)
        overhead(folder, asked.runs, console)


if __name__ == "__main__":
    main()
