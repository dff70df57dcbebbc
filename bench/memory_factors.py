"""`python -m bench.memory_factors`: how much a version takes of its process, for each byte of its artifact.

Each model of `bench.format_models` and a forest in ONNX is loaded and checked in a process of its own, which loaded a
small one of the same format before: what grows then is the model, not its library; a jail's grows beside it. Prints a
table and writes `bench/results/memory_factors.json`, which the factors of `models.loads.memory` are held to.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.format_models import LARGEST_BYTES, Made, inspected, small, working
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelyardError
from modelyard.models.load import check_load, trim
from modelyard.models.loads.memory import JAIL_BYTES, estimate_bytes
from modelyard.models.manifest import Manifest
from modelyard.models.ports import JAILED_FORMATS
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES

RESULTS = Path("bench/results/memory_factors.json")
MIB = 1024 * 1024


@dataclass(frozen=True)
class Ready:
    """A model that was looked at: looking at it takes memory that loading could use again."""

    folder: Path
    manifest: Manifest
    options: dict[str, Any]


def forests(folder: Path) -> dict[str, Made]:
    """The forest of 200 trees on digits in ONNX, whose nodes ONNX Runtime keeps as objects."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    rows, target = load_digits(return_X_y=True)
    made = to_onnx(RandomForestClassifier(200, n_jobs=1, random_state=0).fit(rows, target), rows[:1].astype("f"))
    folder.mkdir()
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return {"onnx-forest": Made("onnx", folder, "model.onnx", rows[:1])}


def ready(made: Made) -> Ready:
    """As a publish would find it."""
    found, options = inspected(made)
    files = tuple(hash_folder(made.folder, LARGEST_BYTES))
    return Ready(made.folder, Manifest(found.format, found.entry, files, found.signature), options)


def grown(before: Ready, model: Ready) -> int:
    """Bytes that this process has more once the model is loaded and checked."""
    try:
        kept = [_load(before)]
        begun, like = _resident(os.getpid()), sum(map(_resident, _below(os.getpid())))
        kept.append(_load(model))
    except ModelyardError as error:  # which another process cannot be sent
        raise RuntimeError(f"{model.manifest.format}: {error}") from None
    return _resident(os.getpid()) - begun + sum(map(_resident, _below(os.getpid()))) - 2 * like


def _load(model: Ready) -> Any:
    loaded = RUNTIMES[model.manifest.format].load(model.folder, model.manifest, model.options)
    check_load(loaded, None, 0.0, SystemClock())
    return loaded


def _resident(pid: int) -> int:
    if pid == os.getpid():
        gc.collect()
        trim()
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _below(pid: int) -> list[int]:
    """The processes that this one started: jails, where the format has one. The second is as the first was, and what
    its model takes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(path.parent.name), *_below(int(path.parent.name))]
    return found


def measured(folder: Path) -> dict[str, dict[str, Any]]:
    """What each takes, what that is of its size, and what it is estimated at, a jail left out."""
    (folder / "small").mkdir()
    (folder / "working").mkdir()
    first = small(folder / "small")
    models = {**working(folder / "working"), **forests(folder / "forest")}
    found = {}
    for name, made in track(models.items(), "loading"):
        like = next(one for one in first.values() if one.format == made.format)
        model = ready(made)
        size = sum(entry.size_bytes for entry in model.manifest.files)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            taken = pool.submit(grown, ready(like), model).result(300)
        found[name] = {
            "format": made.format, "size_bytes": size, "grown_bytes": taken, "factor": round(taken / size, 2),
            "estimated_bytes": estimate_bytes(model.manifest) - (JAIL_BYTES if made.format in JAILED_FORMATS else 0),
        }  # fmt: skip
    return found


def main() -> None:
    """Prints the table and writes the record."""
    parser = argparse.ArgumentParser(prog="bench.memory_factors", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name:
        found = measured(Path(name))
    table = Table("model", "format", "MiB", "grown, MiB", "factor", "estimated, MiB")
    for model, row in found.items():
        sizes = (f"{row[key] / MIB:.1f}" for key in ("size_bytes", "grown_bytes", "estimated_bytes"))
        size, taken, estimated = sizes
        table.add_row(model, row["format"], size, taken, str(row["factor"]), estimated)
    Console().print(table)
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.platform()}
    chosen.out.write_text(json.dumps({**about, "models": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
