"""A minute of burst (the spool absorbs), and a minute of sustained load (the drain keeps up)."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from pathlib import Path

from bench.bodies import Body
from bench.load import measure
from bench.servers import modelyard, published

SUSTAINED = {"MODELYARD_JOURNAL__MAX_SPOOL_BYTES": str(128 * 1024 * 1024)}
"""A small spool: after seconds it is half full, and the drain takes part as an equal of the worker."""


def burst(model: Path, body: Body, seconds: float, folder: Path) -> dict[str, float]:
    """Requests a second for so long, and how long the drain needs afterwards to store all of them."""
    data = Path(tempfile.mkdtemp(dir=folder))
    key = published(data, {"m": model})
    with modelyard(data, key) as target:
        done = measure(target, body, 64, seconds, folder)
        left = spool_mb(data)
        begin = time.perf_counter()
        while spool_mb(data) > 0.1 and time.perf_counter() - begin < 300:
            time.sleep(0.2)
        caught_up = time.perf_counter() - begin
    return {**done.as_dict(), "spool_mb": left, "caught_up_s": caught_up}


def sustained(model: Path, body: Body, seconds: float, folder: Path) -> dict[str, float]:
    """Good answers a second while the spool does not grow: callers that never pause fill it to its bound, then what is
    beyond the drain's rate is refused (`errors`). The spool is sampled twice a second."""
    data = Path(tempfile.mkdtemp(dir=folder))
    key = published(data, {"m": model})
    sizes: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            sizes.append(spool_mb(data))

    with modelyard(data, key, SUSTAINED) as target:
        measure(target, body, 64, seconds / 2, folder, refusals=True)  # until the spool has reached its level
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            done = measure(target, body, 64, seconds, folder, refusals=True)
        finally:
            over.set()
            watcher.join()
    return {**done.as_dict(), "spool_mb_first": sizes[0], "spool_mb_last": sizes[-1], "spool_mb_most": max(sizes)}


def spool_mb(data: Path) -> float:
    found = subprocess.run(["du", "-sb", str(data / "spool")], capture_output=True, text=True)
    return int(found.stdout.split()[0]) / 1e6 if found.returncode == 0 else 0.0
