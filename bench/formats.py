"""`python -m bench.formats`: each format published, served over HTTP and compared on a real table. For an idle machine.

Prints a table, writes `bench/results/formats.json` and `docs/formats-measured.md`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tests.contract.runtime_samples import SAMPLES, Sample

from bench.servers import Target, modelyard, published
from modelyard.core.clock import SystemClock
from modelyard.core.types import DATATYPES, LoadedModel
from modelyard.models.load import check_load
from modelyard.models.manifest import Manifest
from modelyard.models.ports import JAILED_FORMATS
from modelyard.runtimes import RUNTIMES

DATA = "breast_cancer"
JAILED = frozenset({"stub", "python", "pickle"})
"""The public fake, and formats that are code: those need a signature, and a jail that is measured by itself."""
RESULTS = Path("bench/results/formats.json")
PAGE = Path("docs/formats-measured.md")
COLUMNS = {
    "publish": "publish", "signature": "signature found", "equal_rows": "rows served as offline", "batched": "batched",
    "in_process_us": "one row in process", "served_us": "one row over HTTP", "jail": "jail",
}  # fmt: skip


def measured(folder: Path, calls: int) -> dict[str, dict[str, Any]]:
    """Every format's figures, by the name of its sample."""
    samples = {
        name: make(DATA, _made(folder / name)) for name, make in SAMPLES.items() if name.partition("-")[0] not in JAILED
    }
    data = folder / "data"
    key = published(data, {name: _written(sample, folder / f"m-{name}") for name, sample in samples.items()})
    found = {}
    with modelyard(data, key, core=",".join(map(str, sorted(os.sched_getaffinity(0))))) as target:
        for name, sample in track(samples.items(), "Formats"):
            found[name] = _figures(name, sample, folder / f"m-{name}", target, calls)
    return found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _written(sample: Sample, folder: Path) -> Path:
    """The folder to publish; what TorchScript does not say stands beside it."""
    sample.write(folder)
    if sample.options:
        (folder / "modelyard.json").write_bytes(msgspec.json.encode(sample.options))
    return folder


def _figures(name: str, sample: Sample, folder: Path, target: Target, calls: int) -> dict[str, Any]:
    loaded = _load(sample, folder)
    given = loaded.signature.inputs[0]
    rows = sample.rows.astype(DATATYPES[given.datatype])
    batched = check_load(loaded, None, 1e9, SystemClock()).batched
    alone = _times(lambda i: loaded.run({given.name: rows[i : i + 1]}, ()), len(rows), calls)
    call = _Caller(target, name, given.name, given.datatype)
    equal = _equal(sample, call(rows))
    bodies = [call.body(rows[i : i + 1]) for i in range(len(rows))]
    served = _times(lambda i: call.send(bodies[i]), len(rows), calls)
    names = ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in loaded.signature.outputs)
    loaded.close()
    return {
        "publish": "yes", "signature": names, "equal_rows": f"{equal} of {len(rows)}", "batched": _word(batched),
        "in_process_us": round(alone, 1), "served_us": round(served, 1),
        "jail": _word(sample.format in JAILED_FORMATS),
    }  # fmt: skip


def _word(truth: bool) -> str:
    return "yes" if truth else "no"


def _load(sample: Sample, folder: Path) -> LoadedModel:
    runtime = RUNTIMES[sample.format]
    entry = runtime.detect(folder) or sample.name
    found = runtime.inspect(folder, entry, sample.options)
    return runtime.load(folder, Manifest(found.format, entry, (), found.signature), {"threads": 1})


def _times(run: Callable[[int], Any], rows: int, calls: int) -> float:
    """The median of a call, in microseconds, after some to warm up."""
    times = []
    for number in range(-20, calls):
        begun = time.perf_counter()
        run(number % rows)
        if number >= 0:
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def _equal(sample: Sample, served: Mapping[str, Any]) -> int:
    """Rows of which every output is the library's own: labels exactly, numbers within the format's tolerance."""
    good = np.ones(len(sample.rows), bool)
    for name, own in sample.answers.items():
        got = np.reshape(served[name], own.shape)
        same = got == own if own.dtype.kind == "i" else np.isclose(got, own, rtol=1e-5, atol=sample.tolerance)
        good &= same.reshape(len(own), -1).all(axis=1)
    return int(good.sum())


class _Caller:
    """Requests for one model on one connection."""

    def __init__(self, target: Target, model: str, name: str, datatype: str) -> None:
        split = urlsplit(target.url)
        self._connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=60)
        self._path, self._headers = f"/v2/models/{model}/infer", target.headers
        self._name, self._datatype = name, datatype

    def body(self, rows: Any) -> bytes:
        """Rows as a request in JSON."""
        data = rows.ravel().tolist()
        tensor = {"name": self._name, "datatype": self._datatype, "shape": list(rows.shape), "data": data}
        return json.dumps({"inputs": [tensor]}).encode()

    def send(self, body: bytes) -> bytes:
        """The answer's body; RuntimeError if it is no 200."""
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        return content

    def __call__(self, rows: Any) -> dict[str, Any]:
        """All outputs of all rows, in one request."""
        return {each["name"]: each["data"] for each in json.loads(self.send(self.body(rows)))["outputs"]}


def machine() -> dict[str, Any]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


def page(record: Mapping[str, Any]) -> str:
    """The documentation's page of a record."""
    head = ["format", *COLUMNS.values()]
    rows = [
        [f"`{name}`", *(_cell(column, figures[column]) for column in COLUMNS)]
        for name, figures in record["formats"].items()
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    ran = record["machine"]
    return (
        "# Formats, measured\n\n<!-- Written by `python -m bench.formats`; do not change the page, run it. -->\n\n"
        f"Each format is trained on a real table ({DATA.replace('_', ' ')}, a third of it held out), published by the "
        "command line, and asked for every held-out row over HTTP.\n"
        "A row counts as served if each number and label is what the format's own library answers offline.\n"
        "Times are medians of one row: by the library in this process, and over HTTP on one connection (JSON, with "
        "key, limit and log).\n"
        "Formats that are code in Python run in a jail by leave, and are measured by themselves.\n\n"
        f"{table}\n\n"
        f"{record['at']}, {ran['cpu']}, {ran['cores']} cores, Python {ran['python']}, {record['calls']} calls each, "
        "one worker, `journal.durability = process`: `python -m bench.formats`.\n"
    )


def _cell(column: str, value: Any) -> str:
    return f"{value:.0f} µs" if column.endswith("_us") else str(value)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="bench.formats", description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-formats-") as folder:
        found = measured(Path(folder), chosen.calls)
    at = time.strftime("%Y-%m-%d", time.gmtime())
    record = {"at": at, "machine": machine(), "calls": chosen.calls, "data": DATA, "formats": found}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record))
    table = Table("format", *COLUMNS.values(), title=f"Formats on {DATA}")
    for name, figures in found.items():
        table.add_row(name, *(_cell(column, figures[column]) for column in COLUMNS))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
