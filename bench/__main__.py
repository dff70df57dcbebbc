"""`python -m bench`: the comparison in one sitting, interleaved passes, medians; JSON and plots. For an idle machine.

`--only` picks sections: compare, surfaces, stages, workers, image, start, memory, open (constant arrival), queries,
drain, rates. Peers (MLServer, BentoML) are measured if their environments are there (`make bench-peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import footprint, log_queries, long_rates, models, open_rates, surfaces
from bench.bodies import Body, as_binary, as_json
from bench.load import Measured, measure
from bench.plots import plot
from bench.servers import (
    Target,
    ask,
    bentoml,
    fastapi_handler,
    granian_hello,
    hello,
    mlserver,
    modelyard,
    published,
    staged,
)

OURS, HANDLER = "Modelyard, everything on", "FastAPI handler, nothing on"
HELLO, GRANIAN = "uvicorn hello", "granian hello"
MLSERVER, BENTOML = "MLServer", "BentoML"
SECTIONS = ("compare", "surfaces", "stages", "workers", "image", "start", "memory", "open", "queries", "drain", "rates")
STAGES = ([], ["keys"], ["limits"], ["journal"], ["batching"], ["limits", "journal"], ["keys", "limits", "journal"])
PEERS = {MLSERVER: Path(".venv-mlserver/bin/python"), BENTOML: Path(".venv-bentoml/bin/python")}
Servers = dict[str, Callable[[], AbstractContextManager[Target]]]
Passes = dict[str, dict[str, list[Measured]]]
console = Console()


class Bench:
    """What all sections share: models, bodies, one data folder per model."""

    def __init__(self, folder: Path, passes: int, seconds: float, only: str, records: int) -> None:
        self.folder, self.passes, self.seconds, self.only, self.records = folder, passes, seconds, only, records
        self.tree, self.mlp, self.image = models.tree(folder), models.mlp(folder), models.image(folder)
        self.data: dict[Path, tuple[Path, str]] = {}
        self.copies = 0

    def folder_of(self, model: models.Model) -> tuple[Path, str]:
        """A data folder with this model as `m`, and its client's key."""
        if model.path not in self.data:
            data = self.folder / f"data-{model.path.stem}"
            self.data[model.path] = (data, published(data, {"m": model.path}))
        return self.data[model.path]

    def copy_of(self, model: models.Model) -> tuple[Path, str]:
        """The same, fresh: what an earlier pass left in the spool would make the drain hurry in this one."""
        data, key = self.folder_of(model)
        self.copies += 1
        return shutil.copytree(data, self.folder / f"copy-{self.copies}"), key

    def run(self, cases: dict[str, tuple[Servers, Body, int]]) -> Passes:
        """case -> server -> passes. Servers take turns within a pass, so that a slow minute hurts all alike."""
        found: Passes = {}
        cases = {name: case for name, case in cases.items() if self.only in name}
        plan = [(number, case) for number in range(self.passes) for case in cases]
        for _, case in track(plan, "Measuring", console=console):
            servers, body, connections = cases[case]
            for name, start in servers.items():
                with start() as target:
                    done = measure(target, body, connections, self.seconds, self.folder)
                found.setdefault(case, {}).setdefault(name, []).append(done)
        return found

    def compare(self) -> Passes:
        """One row at 1, 16, 64 connections on both models; 100 rows at 4; the peers at 64."""
        cases: dict[str, tuple[Servers, Body, int]] = {}
        for label, model in (("tree", self.tree), ("MLP", self.mlp)):
            body = as_json(model, 1, self.folder)
            for connections in (1, 16, 64):
                servers = self.servers_of(model)
                if label == "tree":
                    servers |= {HELLO: hello, GRANIAN: granian_hello}
                if connections == 64:
                    servers |= self._peers(model)
                cases[f"{label}, 1 row, {connections} connection{'s' * (connections > 1)}"] = servers, body, connections
        hundred = as_json(self.tree, 100, self.folder)
        cases["tree, 100 rows, 4 connections"] = self.servers_of(self.tree), hundred, 4
        return self.run(cases)

    def surfaces(self) -> Passes:
        """The tree model by every surface, and with an Idempotency-Key."""
        return surfaces.measured(self.tree, self.folder, self.passes, self.seconds, self.only)

    def stages(self) -> Passes:
        """The tree model at 64 connections with stages taken out; no drain in any of them."""
        data, key = self.folder_of(self.tree)
        servers: Servers = {
            f"without {', '.join(out)}" if out else "all stages": lambda out=out: staged(data, key, out)  # type: ignore[misc]
            for out in STAGES
        }
        return self.run({"tree, 1 row, 64 connections": (servers, as_json(self.tree, 1, self.folder), 64)})

    def workers(self) -> dict[str, float]:
        """MLP requests per second of server CPU, with one worker and with two; both cores are theirs."""
        found = {}
        data, key = self.folder_of(self.mlp)
        body = as_json(self.mlp, 1, self.folder)
        for workers in (1, 2):
            with modelyard(data, key, workers=workers, core="0,1") as target:
                ask(target, body)
                before = cpu_s(target.pid)
                done = measure(target, body, 16, self.seconds, self.folder)
                spent = cpu_s(target.pid) - before
            found[f"workers_{workers}_per_cpu_s"] = done.requests_per_s * (self.seconds + 1) / spent
        return found

    def images(self) -> Passes:
        """One image at 4 connections, JSON and binary; ONNX Runtime itself is measured in `image_in_process`."""
        servers = self.servers_of(self.image)
        return self.run(
            {
                "image, JSON, 4 connections": (servers, as_json(self.image, 1, self.folder), 4),
                "image, binary, 4 connections": ({OURS: servers[OURS]}, as_binary(self.image, 1, self.folder), 4),
            }
        )

    def servers_of(self, model: models.Model) -> Servers:
        """Ours and the handler, with this model."""
        self.folder_of(model)
        return {OURS: lambda: modelyard(*self.copy_of(model)), HANDLER: lambda: fastapi_handler(model.path)}

    def _peers(self, model: models.Model) -> Servers:
        found: Servers = {}
        folder = self.folder / f"mlserver-{model.path.stem}"
        folder.mkdir(exist_ok=True)
        if PEERS[MLSERVER].exists():
            found[MLSERVER] = lambda: mlserver(PEERS[MLSERVER].absolute(), model.path, folder)
        if PEERS[BENTOML].exists():
            found[BENTOML] = lambda: bentoml(PEERS[BENTOML].absolute(), model.path)
        return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its living descendants."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for task in Path(f"/proc/{one}/task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return total


def machine() -> dict[str, object]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "python": sys.version.split()[0], "system": platform.platform()}


def medians(found: Passes) -> dict[str, dict[str, dict[str, float]]]:
    """The median of each figure over the passes, and the spread of the rate (max / min)."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for case, servers in found.items():
        for server, passes in servers.items():
            rates = [one.requests_per_s for one in passes]
            names = ("requests_per_s", "p50_ms", "p95_ms", "p99_ms")
            figures = {name: round(statistics.median(one.as_dict()[name] for one in passes), 3) for name in names}
            result.setdefault(case, {})[server] = {**figures, "spread": round(max(rates) / min(rates), 2)}
    return result


def show(title: str, result: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table with ratios to the case's second server (the handler), or its first."""
    table = Table("case", "server", "requests/s", "p50 ms", "p99 ms", "ratio", "spread", title=title)
    for case, servers in result.items():
        base = servers.get(HANDLER) or next(iter(servers.values()))
        for server, figures in servers.items():
            table.add_row(
                case,
                server,
                f"{figures['requests_per_s']:,.0f}",
                f"{figures['p50_ms']:.2f}",
                f"{figures['p99_ms']:.2f}",
                f"{figures['requests_per_s'] / base['requests_per_s']:.2f}",
                f"{figures['spread']:.2f}",
            )
        table.add_section()
    console.print(table)


def measure_sections(bench: Bench, chosen: list[str], minutes_s: float, save: Callable[[dict[str, Any]], None]) -> None:
    """The record's sections, each handed to `save` as soon as it is measured."""
    data, key = bench.folder_of(bench.tree)
    body = as_json(bench.tree, 1, bench.folder)
    single: dict[str, Callable[[], Any]] = {
        "workers": bench.workers,
        "start": lambda: footprint.starts(data, key, bench.tree, body),
        "memory": lambda: _memory(bench, body),
        "open": lambda: open_rates.constant_arrival(bench.servers_of(bench.tree), body, 2 * bench.seconds),
        "queries": lambda: log_queries.query_times(bench.folder / "data-queries", bench.records),
        "drain": lambda: _drain(bench, body),
        "burst": lambda: long_rates.burst(bench.tree.path, body, minutes_s, bench.folder),
        "sustained": lambda: long_rates.sustained(bench.tree.path, body, minutes_s, bench.folder),
    }
    compared = {"compare": bench.compare, "surfaces": bench.surfaces, "stages": bench.stages, "image": bench.images}
    for name in chosen:
        console.rule(name)
        if name in compared:
            save(_compared(name, compared[name]()))
            if name == "image":
                save({"image_in_process": footprint.in_process(bench.image, 1)})
            continue
        for one in ("burst", "sustained") if name == "rates" else (name,):
            found = single[one]()
            console.print({one: found})
            save({one: found})


def _compared(name: str, found: Passes) -> dict[str, Any]:
    middle = medians(found)
    show(name, middle)
    passes = {
        case: {server: [one.as_dict() for one in several] for server, several in servers.items()}
        for case, servers in found.items()
    }
    return {name: middle, f"{name}_all": passes}


def _memory(bench: Bench, body: Body) -> dict[str, float]:
    three = bench.folder / "data-three"
    key = published(three, {"m": bench.tree.path, "mlp": bench.mlp.path, "again": bench.tree.path})
    return footprint.memory(three, key, [bench.tree, bench.mlp, bench.tree], body, bench.folder)


def _drain(bench: Bench, body: Body) -> dict[str, float]:
    fresh = bench.folder / "data-drain"
    return footprint.drain_rate(fresh, published(fresh, {"m": bench.tree.path}), body, bench.folder, 5)


def main() -> None:
    """Measures, prints, writes bench/results/latest.json and the plots."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--minute", type=float, default=60, help="length of burst and sustained load, seconds")
    parser.add_argument("--records", type=int, default=10_000_000, help="in the log that is queried")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--case", default="", help="measure only cases whose name holds this text")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "latest.json"
    record = json.loads(path.read_text()) if path.exists() and chosen.only != list(SECTIONS) else {}

    def save(section: dict[str, Any]) -> None:
        record.update(section)
        record.update(
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), machine=machine(), passes=chosen.passes,
            seconds=chosen.seconds, records=chosen.records, durability="process",
        )  # fmt: skip
        path.write_text(json.dumps(record, indent=1) + "\n")
        if "compare" in section:
            plot(record["compare"], chosen.out)

    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        bench = Bench(Path(folder), chosen.passes, chosen.seconds, chosen.case, chosen.records)
        measure_sections(bench, chosen.only, chosen.minute, save)


if __name__ == "__main__":
    main()
