"""`python -m bench`: the comparison, interleaved passes, medians; JSON and plots. For an otherwise idle machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import models
from bench.load import Measured, measure
from bench.plots import plot
from bench.servers import Target, fastapi_handler, hello, modelyard

CONNECTIONS = (1, 16, 64)
OURS, HANDLER, HELLO = "Modelyard, everything on", "FastAPI handler, nothing on", "uvicorn hello"
console = Console()


def machine() -> dict[str, object]:
    """What it ran on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "python": sys.version.split()[0], "system": platform.platform()}


def infer(name: str, rows: list[list[float]]) -> str:
    """An Open Inference Protocol request with these rows."""
    flat = [number for row in rows for number in row]
    return json.dumps(
        {"inputs": [{"name": name, "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": flat}]},
        separators=(",", ":"),
    )


def compare(passes: int, seconds: float, folder: Path) -> dict[str, dict[str, list[Measured]]]:
    """case -> server -> passes. The servers take turns within a pass, so that a slow minute hurts all alike."""
    found: dict[str, dict[str, list[Measured]]] = {}
    tree, mlp = models.tree(folder), models.mlp(folder)
    cases = [(f"tree, 1 row, {n} connections", tree, 1, n) for n in CONNECTIONS]
    cases += [("MLP, 1 row, 64 connections", mlp, 1, 64), ("tree, 100 rows, 4 connections", tree, 100, 4)]
    plan = [(number, case) for number in range(passes) for case in cases]
    for number, (case, (path, name, rows), count, connections) in track(plan, "Measuring", console=console):
        body = infer(name, rows[:count])
        servers: dict[str, Callable[[], AbstractContextManager[Target]]] = {
            OURS: lambda path=path, number=number, case=case: modelyard(_fresh(folder, f"{number}{case}"), path),
            HANDLER: lambda path=path: fastapi_handler(path),
            HELLO: hello,
        }
        for server, start in servers.items():
            with start() as target:
                done = measure(target, body, connections, seconds, folder)
            found.setdefault(case, {}).setdefault(server, []).append(done)
    return found


def _fresh(folder: Path, name: str) -> Path:
    made = folder / "".join(letter for letter in name if letter.isalnum())
    made.mkdir()
    return made


def medians(found: dict[str, dict[str, list[Measured]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The median of each figure over the passes, and the spread of the rate (max / min)."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for case, servers in found.items():
        for server, passes in servers.items():
            rates = [one.requests_per_s for one in passes]
            figures = {
                name: round(statistics.median(one.as_dict()[name] for one in passes), 3)
                for name in ("requests_per_s", "p50_ms", "p95_ms", "p99_ms")
            }
            result.setdefault(case, {})[server] = {**figures, "spread": round(max(rates) / min(rates), 2)}
    return result


def show(result: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table with ratios."""
    table = Table("case", "server", "requests/s", "p50 ms", "p99 ms", "× handler", "spread")
    for case, servers in result.items():
        for server, figures in servers.items():
            ratio = figures["requests_per_s"] / servers[HANDLER]["requests_per_s"]
            table.add_row(
                case,
                server,
                f"{figures['requests_per_s']:,.0f}",
                f"{figures['p50_ms']:.2f}",
                f"{figures['p99_ms']:.2f}",
                f"{ratio:.2f}",
                f"{figures['spread']:.2f}",
            )
        table.add_section()
    console.print(table)


def main() -> None:
    """Measures, prints, writes bench/results/latest.json and the plots."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        found = compare(chosen.passes, chosen.seconds, Path(folder))
    result = medians(found)
    chosen.out.mkdir(parents=True, exist_ok=True)
    record = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "passes": chosen.passes,
        "seconds": chosen.seconds,
        "durability": "process",
        "medians": result,
        "all": {case: {name: [one.as_dict() for one in p] for name, p in s.items()} for case, s in found.items()},
    }
    (chosen.out / "latest.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(result, chosen.out)
    show(result)


if __name__ == "__main__":
    main()
