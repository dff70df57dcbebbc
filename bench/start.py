"""`python -m bench.start`: from the start of a server to a large model's readiness, beside ONNX Runtime's own load.

Both are fresh processes that read the same file of the store, in turn, its pages in memory. `own` is a process that
imports ONNX Runtime and opens a session. Prints medians, writes `bench/results/start.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.formats import machine
from bench.servers import CLIENT_CORE, MODELYARD, SERVER_CORE, free_port, published, started, wait_ready

RESULTS = Path("bench/results/start.json")
EMBEDDED, WIDTH = 64, 4096
OWN = """
import json, sys, time
begun = time.perf_counter()
import numpy, onnxruntime
wanted = onnxruntime.SessionOptions()
wanted.intra_op_num_threads, wanted.inter_op_num_threads = int(sys.argv[2]), 1
imported = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], wanted, providers=["CPUExecutionProvider"])
loaded = time.perf_counter()
given = session.get_inputs()[0]
row = numpy.zeros((1, *given.shape[1:]), numpy.int64 if "int64" in given.type else numpy.float32)
session.run(None, {given.name: row})
took = {"import_s": imported - begun, "load_s": loaded - imported, "first_run_s": time.perf_counter() - loaded}
print(json.dumps(took))
"""
Rows = list[dict[str, Any]]


def embedding(size_bytes: int) -> Any:
    """The mean of four of many embeddings, scored: a table of this size that takes part, and runs of microseconds."""
    from onnx import TensorProto, helper, numpy_helper

    count = size_bytes // (4 * EMBEDDED)
    draw = np.random.default_rng(0)
    table = np.tile(draw.standard_normal((4096, EMBEDDED)).astype(np.float32), (-(-count // 4096), 1))[:count]
    weights = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(draw.standard_normal((EMBEDDED, 2)).astype(np.float32), "head"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("ReduceMean", ["found"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["scores"]),
    ]
    return _model(nodes, weights, ("ids", TensorProto.INT64, 4), 2)


def layers(size_bytes: int) -> Any:
    """A perceptron of as many layers 4096 x 4096 as this takes (64 MiB each): each run reads every weight."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    square = (draw.standard_normal((WIDTH, WIDTH)) * np.sqrt(2 / WIDTH)).astype(np.float32)
    nodes, weights, at = [], [], "x"
    for i in range(max(1, size_bytes // square.nbytes)):
        weights.append(numpy_helper.from_array(np.roll(square, i, axis=0), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [at, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"a{i}"]))
        at = f"a{i}"
    weights.append(numpy_helper.from_array(draw.standard_normal((WIDTH, 2)).astype(np.float32) / 64, "head"))
    nodes.append(helper.make_node("MatMul", [at, "head"], ["scores"]))
    return _model(nodes, weights, ("x", TensorProto.FLOAT, WIDTH), 2)


def _model(nodes: list[Any], weights: list[Any], given: tuple[str, int, int], classes: int) -> Any:
    from onnx import TensorProto, helper

    name, kind, width = given
    inputs = [helper.make_tensor_value_info(name, kind, ["rows", width])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", classes])]
    graph = helper.make_graph(nodes, "large", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SHAPES: Mapping[str, Callable[[int], Any]] = {"embedding": embedding, "layers": layers}


def written(shape: str, size_bytes: int, external: bool, folder: Path) -> Path:
    """The folder to publish: one file, or the graph with its weights beside it."""
    import onnx

    folder.mkdir()
    model = SHAPES[shape](size_bytes)
    example = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}
    if shape == "embedding":
        (folder / "modelyard.json").write_text(json.dumps({"example": example}))
    onnx.save(model, folder / "model.onnx", save_as_external_data=external, location="weights.bin")
    return folder


def own_load(path: Path, threads: int) -> dict[str, float]:
    """A fresh process that opens a session and runs one row."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", OWN, str(path), str(threads)], check=True, capture_output=True, text=True
    )
    return {**json.loads(done.stdout), "whole_s": time.perf_counter() - begun}


def served_load(data: Path, key: str) -> dict[str, float]:
    """A server from its start to the model's readiness, and the load as its own log says it."""
    port = free_port()
    command = [*MODELYARD, "serve", "--data", str(data), "--port", str(port), "--workers", "1"]
    log = data.parent / "serve.log"
    begun = time.perf_counter()
    with started(command, port, core=f"{SERVER_CORE},{CLIENT_CORE}", log=log):
        wait_ready(f"http://127.0.0.1:{port}/v2/models/m/ready", {"x-api-key": key})
        ready_s = time.perf_counter() - begun
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    loads = [event["load_s"] for event in events if event.get("event") == "model.loaded"]
    return {"whole_s": ready_s, "load_s": loads[0] if loads else float("nan")}


def _warm(folder: Path) -> None:
    """The file's pages into memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(16 * 1024**2):
                    pass


def measured(shape: str, size_bytes: int, external: bool, passes: int, folder: Path) -> dict[str, Any]:
    """One kind of file: medians of both, in turn."""
    source = written(shape, size_bytes, external, folder / "source")
    data = folder / "data"
    begun = time.perf_counter()
    key = published(data, {"m": source})
    published_s = time.perf_counter() - begun
    (stored,) = (data / "artifacts").rglob("model.onnx")
    threads = len(os.sched_getaffinity(0))
    own: Rows = []
    served: Rows = []
    for _ in range(passes):
        _warm(stored.parent)
        own.append(own_load(stored, threads))
        served.append(served_load(data, key))
    medians = {
        who: {what: round(statistics.median(one[what] for one in rows), 3) for what in rows[0]}
        for who, rows in (("own", own), ("served", served))
    }
    whole = medians["own"]["import_s"] + medians["own"]["load_s"]
    return {
        "file": f"{shape}, {'weights beside it' if external else 'one file'}", "bytes": size_bytes,
        "publish_s": round(published_s, 1), **medians, "ratio": round(medians["served"]["whole_s"] / whole, 2),
    }  # fmt: skip


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="bench.start", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: both")
    parser.add_argument("--form", choices=("one", "beside"), action="append", help="default: both")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    found = []
    for shape in chosen.shape or SHAPES:
        for form in chosen.form or ("one", "beside"):
            with tempfile.TemporaryDirectory(prefix="modelyard-start-") as folder:
                found.append(measured(shape, chosen.mib * 1024**2, form == "beside", chosen.passes, Path(folder)))
    table = Table("File", "Import + own load (s)", "Start to ready (s)", "of it the load (s)", "Ratio", box=None)
    for each in found:
        own, served = each["own"], each["served"]
        cells = (own["import_s"] + own["load_s"], served["whole_s"], served["load_s"])
        table.add_row(each["file"], *(f"{cell:.2f}" for cell in cells), f"{each['ratio']:.2f}")
    Console(width=140).print(table)
    record = {
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "passes": chosen.passes,
        "found": found,
    }
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
