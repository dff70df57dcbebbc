"""`python -m bench.formats`: each format published, served over HTTP and compared with its library in process.

Six minutes on an idle machine of two cores. Prints a table, writes `bench/results/formats.json` (or `--out`) and
`docs/formats-measured.md`. The server and its jails have one core; everything else has the other: wrk, the drain, and
the library's own calls, of which no two run at the same time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.bodies import Body
from bench.direct_calls import CALLS, Call
from bench.format_models import SIZES, Made, inspected, signed
from bench.format_page import BATCH, COLUMNS, CONNECTIONS, DATA, cells, page
from bench.load import measure
from bench.servers import CLIENT_CORE, Target, modelyard, publish, published
from modelyard.core.clock import SystemClock
from modelyard.core.types import DATATYPES, LoadedModel
from modelyard.models.load import check_load
from modelyard.models.ports import JAILED_FORMATS
from modelyard.runtimes import RUNTIMES

RESULTS = Path("bench/results/formats.json")
PAGE = Path("docs/formats-measured.md")
PAUSE_S = 0.001
WARM_CALLS = 20
IN_PROCESS_S = 0.5
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The library has as many threads in this process as in the worker."""
SETTINGS = {"MODELYARD_JOURNAL__DRAIN_URGENT_AGE_S": "3600", "MODELYARD_BATCHING__MAX_WAIT_MS": "60000"}
"""The drain yields to everything else for as long as is measured, and no batch is refused because others wait."""


class Bench:
    """What is measured: `passes` of each, in turn with its counterpart."""

    def __init__(self, folder: Path, passes: int, calls: int, seconds: float, target: Target) -> None:
        self.folder, self.passes, self.calls, self.seconds, self.target = folder, passes, calls, seconds, target

    def facts(self, name: str, made: Made) -> dict[str, Any]:
        """What was found at the publish, and how many rows are answered over HTTP as offline."""
        loaded = _load(made)
        batched = check_load(loaded, None, 1e9, SystemClock()).batched
        loaded.close()
        given, outputs = self._metadata(name)
        served = json.loads(self._ask("POST", name, "/infer", _json(*given, made.rows.astype(DATATYPES[given[1]]))))
        found = {each["name"]: each["data"] for each in served["outputs"]}
        return {
            "publish": "yes", "signature": outputs, "equal_rows": f"{_equal(made, found)} of {len(made.rows)}",
            "batched": _word(batched), "jail": _word(made.format in JAILED_FORMATS),
        }  # fmt: skip

    def single(self, name: str, made: Made) -> dict[str, float]:
        """One row: by its library in this process, at once and after a pause, and over HTTP on one connection."""
        own, ((given, datatype), _) = CALLS[made.format](made.path), self._metadata(name)
        rows = made.rows.astype(DATATYPES[datatype])
        body = self._body(f"{name}-1", _json(given, datatype, rows[:1]), {"content-type": "application/json"})
        times: dict[str, list[float]] = {"in_process_us": [], "paced_us": [], "served_us": []}
        for number in range(self.passes):
            times["in_process_us"].append(median_us(own, rows, self.calls))
            times["paced_us"].append(median_us(own, rows, self.calls, PAUSE_S))
            served = measure(self._target(name), body, 1, self.seconds, self.folder, warm=not number)
            times["served_us"].append(served.p50_ms * 1e3)
        found = {what: round(statistics.median(each), 1) for what, each in times.items()}
        return {**found, "above_us": round(found["served_us"] - found["in_process_us"], 1)}

    def batches(self, name: str, made: Made) -> dict[str, float]:
        """Batches a second: by the library in this process, and served in binary."""
        own, ((given, datatype), _) = CALLS[made.format](made.path), self._metadata(name)
        rows = np.ascontiguousarray(made.rows[:BATCH].astype(DATATYPES[datatype]))
        head, blob = _binary(given, datatype, rows)
        fields = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
        body = self._body(f"{name}-batch", head + blob, fields)
        alone, served = [], []
        for number in range(self.passes):
            alone.append(rate(own, rows, IN_PROCESS_S))
            passed = measure(self._target(name), body, CONNECTIONS, self.seconds, self.folder, warm=not number)
            served.append(passed.requests_per_s)
        ours, theirs = statistics.median(served), statistics.median(alone)
        return {"served_per_s": round(ours, 1), "in_process_per_s": round(theirs, 1), "ratio": round(ours / theirs, 3)}

    def _target(self, name: str) -> Target:
        return replace(self.target, url=self.target.url.replace("/models/m/", f"/models/{name}/"))

    def _metadata(self, name: str) -> tuple[tuple[str, str], str]:
        """The input's name and datatype, and all outputs in words."""
        known = json.loads(self._ask("GET", name))
        given = known["inputs"][0]
        outputs = ", ".join(f"{each['name']} {each['datatype']}{each['shape']}" for each in known["outputs"])
        return (given["name"], given["datatype"]), outputs

    def _ask(self, method: str, name: str, path: str = "", body: bytes | None = None) -> bytes:
        """The answer's body; RuntimeError if it is no 200."""
        split = urlsplit(self.target.url)
        connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=60)
        connection.request(method, f"/v2/models/{name}{path}", body, self.target.headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        return content

    def _body(self, name: str, content: bytes, headers: dict[str, str]) -> Body:
        path = self.folder / f"{name}.body"
        path.write_bytes(content)
        return Body(path, headers)


def measured(
    folder: Path, passes: int, calls: int, seconds: float, only: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Every format's figures, by name."""
    models = {
        f"{size}-{name}": made
        for size, make in SIZES.items()
        for name, made in make(_new(folder / size)).items()
        if not only or name in only
    }
    settings = {**SETTINGS, **signed(models)}
    key = published(folder / "data", {})
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as together:
        list(together.map(lambda name: publish(folder / "data", name, models[name].folder, settings), models))
    found: dict[str, dict[str, Any]] = {}
    with modelyard(folder / "data", key, settings) as target:
        _keep_to_client_core(target.pid)
        bench = Bench(folder, passes, calls, seconds, target)
        for name, made in track(models.items(), "Formats"):
            size, _, form = name.partition("-")
            if size == "small":
                found[form] = {**bench.facts(name, made), **bench.single(name, made)}
            batches = bench.batches(name, made)
            found[form] |= {f"{size}_batches": batches, f"{size}_ratio": batches["ratio"]}
    return found


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _keep_to_client_core(server: int) -> None:
    """This process, and the server's drain: what it does happens later anyway, and is measured by itself."""
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server and b"entry.drain" in (place / "cmdline").read_bytes():
                os.sched_setaffinity(int(place.name), {int(CLIENT_CORE)})
        except (FileNotFoundError, ProcessLookupError):
            continue


def _load(made: Made) -> LoadedModel:
    manifest, options = inspected(made)
    return RUNTIMES[made.format].load(made.folder, manifest, options)


def _word(truth: bool) -> str:
    return "yes" if truth else "no"


def median_us(run: Call, rows: np.ndarray, calls: int, pause_s: float = 0.0) -> float:
    """The median of a call of one row, after some to warm up; `pause_s` between them, as between requests."""
    each = [np.ascontiguousarray(rows[i : i + 1]) for i in range(len(rows))]
    times = []
    for number in range(-WARM_CALLS, calls):
        if pause_s:
            time.sleep(pause_s)
        begun = time.perf_counter()
        run(each[number % len(each)])
        if number >= 0:
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def rate(run: Call, rows: np.ndarray, seconds: float) -> float:
    """Runs a second."""
    run(rows)
    begun, runs = time.perf_counter(), 0
    while (took := time.perf_counter() - begun) < seconds:
        run(rows)
        runs += 1
    return runs / took


def _equal(made: Made, served: Mapping[str, Any]) -> int:
    """Rows of which every output is the library's own: labels exactly, numbers within the format's tolerance."""
    good = np.ones(len(made.rows), bool)
    for name, own in made.answers.items():
        got = np.reshape(served[name], own.shape)
        same = got == own if own.dtype.kind == "i" else np.isclose(got, own, rtol=1e-5, atol=made.tolerance)
        good &= same.reshape(len(own), -1).all(axis=1)
    return int(good.sum())


def _json(name: str, datatype: str, rows: np.ndarray) -> bytes:
    tensor = {"name": name, "datatype": datatype, "shape": list(rows.shape), "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _binary(name: str, datatype: str, rows: np.ndarray) -> tuple[bytes, bytes]:
    """The JSON and what follows it."""
    blob = rows.tobytes()
    tensor = {
        "name": name, "datatype": datatype, "shape": list(rows.shape), "parameters": {"binary_data_size": len(blob)}
    }  # fmt: skip
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode(), blob


def machine() -> dict[str, Any]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="bench.formats", description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls of a pass in process")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a pass of wrk, in whole seconds")
    parser.add_argument("--only", nargs="*", default=[], help="these formats, as the table calls them; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="elsewhere; the page is not written then")
    chosen = parser.parse_args()
    if chosen.only and chosen.out == RESULTS:
        parser.error("the record has every format: name another file with --out")
    if any(os.environ.get(name) != text for name, text in ALONE.items()):
        # Read by the libraries when they are imported, as numpy is here already.
        again = [sys.executable, "-m", "bench.formats", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ALONE})
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="modelyard-formats-") as folder:
        found = measured(Path(folder), chosen.passes, chosen.calls, chosen.seconds, chosen.only)
    record = {
        "at": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "load": load, "passes": chosen.passes,
        "calls": chosen.calls, "data": DATA, "formats": found,
    }  # fmt: skip
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    if chosen.out == RESULTS:
        PAGE.write_text(page(record))
    table = Table("format", *COLUMNS.values(), title=f"Formats on {DATA}")
    for name, figures in found.items():
        table.add_row(name, *cells(figures))
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
