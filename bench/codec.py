"""Microseconds per request of the codec, by kind of request: `python bench/codec.py [--json FILE]`.

Each figure is the median over rounds of the mean time of one call in that round, on one thread, nothing else
measured: no socket, no model. The data is random; only its size and form matter here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from modelyard.codec import CODECS
from modelyard.codec.log import decode_for_log
from modelyard.core.types import AnswerContext, CodecBounds, RawRequest, Signature, Surface, TensorSpec

ROUNDS = 15
ROUND_S = 0.02
BOUNDS = CodecBounds()


def measure(call: Callable[[], Any]) -> float:
    """Median microseconds of one call."""
    call()
    begin = time.perf_counter()
    call()
    repeat = max(1, int(ROUND_S / max(time.perf_counter() - begin, 1e-7)))
    means = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(repeat):
            call()
        means.append((time.perf_counter() - begin) / repeat * 1e6)
    return statistics.median(means)


def signature_of(width: int, named: bool) -> Signature:
    """A classifier of `width` features and two classes."""
    columns = tuple(f"feature {index}" for index in range(width)) if named else ()
    return Signature(
        (TensorSpec("X", "FP32", (-1, width), columns),),
        (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
    )


def requests(rows: int, width: int, signature: Signature) -> dict[str, tuple[Surface, RawRequest]]:
    """The same rows in every form."""
    table = np.random.default_rng(1).normal(size=(rows, width)).round(4).astype(np.float32)
    item: dict[str, Any] = {"name": "X", "shape": [rows, width], "datatype": "FP32"}
    values = [[round(float(value), 4) for value in row] for row in table]
    flat = {**item, "data": [value for row in values for value in row]}
    head = orjson.dumps({"inputs": [{**item, "parameters": {"binary_data_size": table.nbytes}}]})
    columns = signature.inputs[0].columns
    items = [dict(zip(columns, row, strict=True)) for row in values] if columns else [{"X": row} for row in values]
    return {
        "flat JSON": (Surface.OIP, RawRequest(orjson.dumps({"inputs": [flat]}))),
        "nested JSON": (Surface.OIP, RawRequest(orjson.dumps({"inputs": [{**item, "data": values}]}))),
        "JSON with id and outputs": (
            Surface.OIP,
            RawRequest(orjson.dumps({"id": "a-1", "inputs": [flat], "outputs": [{"name": "label"}]})),
        ),
        "binary": (Surface.OIP, RawRequest(head + table.tobytes(), None, b"%d" % len(head))),
        "items": (Surface.PREDICTIONS, RawRequest(orjson.dumps({"items": items}))),
    }


def figures(surface: Surface, raw: RawRequest, signature: Signature, rows: int) -> dict[str, float]:
    """Microseconds of decoding, encoding and logging one request, and of logging it under a redaction policy."""
    codec = CODECS[surface]
    context = AnswerContext("tree", "1", "019a0000-0000-7000-8000-000000000000", signature)
    outputs = {"label": np.ones(rows, np.int64), "probabilities": np.full((rows, 2), 0.5, np.float32)}
    request = codec.decode(raw, signature, BOUNDS)
    answer = codec.encode(request, outputs, context)
    calls: dict[str, Callable[[], Any]] = {
        "decode_us": lambda: codec.decode(raw, signature, BOUNDS),
        "encode_us": lambda: codec.encode(request, outputs, context),
        "log_us": lambda: decode_for_log(surface, raw, answer, signature, ()),
        "log_redacted_us": lambda: decode_for_log(surface, raw, answer, signature, ("feature 3", "X[3]")),
    }
    return {name: round(measure(call), 2) for name, call in calls.items()}


def cases() -> list[dict[str, Any]]:
    """One row of figures per form and size."""
    found: list[dict[str, Any]] = []
    for rows, width, named in ((1, 30, True), (1, 784, False), (100, 30, True)):
        signature = signature_of(width, named)
        for form, (surface, raw) in requests(rows, width, signature).items():
            case = {"rows": rows, "features": width, "form": form, "request_bytes": len(raw.body)}
            found.append({**case, **figures(surface, raw, signature, rows)})
    return found


def main() -> None:
    """Prints the table; with --json also writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = cases()
    print(
        f"{'rows':>5} {'features':>8}  {'form':<26} {'bytes':>7} {'decode':>8} {'encode':>8} {'log':>8} {'redacted':>8}"
    )
    for case in found:
        times = " ".join(f"{case[key]:>8.2f}" for key in ("decode_us", "encode_us", "log_us", "log_redacted_us"))
        print(f"{case['rows']:>5} {case['features']:>8}  {case['form']:<26} {case['request_bytes']:>7} {times}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
