"""A process of fast callers beside a test, and the comparison of what they were told with the log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trained
from fast_callers import digest_of
from server import clean_environment, until

HERE = Path(__file__).parent


class FastCallers:
    """Starts at once; `counts` are at most half a second old; `stop` gives what was acknowledged: id, row, digest."""

    def __init__(self, port: int, key: str, folder: Path, connections: int = 16, seed: int = 1) -> None:
        bodies = folder / "bodies"
        rows = trained.cancer().rows
        bodies.write_text("\n".join(json.dumps(trained.infer_body(X=rows[n : n + 1])) for n in range(len(rows))) + "\n")
        self._out = folder / f"acknowledged-{seed}"
        arguments = [str(port), key, str(bodies), str(connections), str(seed), str(self._out)]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fast_callers.py"), *arguments], stdout=subprocess.PIPE, text=True
        )
        self.counts: Mapping[str, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: self.counts.get("acknowledged", 0) > 0, 60, "the first answer")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.counts = json.loads(line)

    def stop(self) -> dict[str, tuple[int, str]]:
        """Ends after the answers that are under way."""
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(60) == 0
        finally:
            self.end()
        *lines, counts = self._out.read_text().splitlines()
        self.counts = json.loads(counts)
        acknowledged = {}
        for line in lines:
            one, row, digest = line.split()
            assert one not in acknowledged, f"{one} was given twice"
            acknowledged[one] = (int(row), digest)
        return acknowledged

    def end(self) -> None:
        """Leaves nothing behind."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def balance(data: Path, acknowledged: Mapping[str, tuple[int, str]], out: Path) -> dict[str, int]:
    """Exports the log of a stopped server and compares: every acknowledged id once, the sampled answers the same."""
    arguments = ["predictions", "export", "--format", "jsonl", "--status", "2", "--data", str(data), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *arguments],
        env=clean_environment(), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged: set[str] = set()
    twice = different = 0
    with out.open("rb") as lines:
        for line in lines:
            record: dict[str, Any] = json.loads(line)
            one = record["id"]
            twice += one in logged
            logged.add(one)
            told = acknowledged.get(one)
            if told is not None and told[1] != "-":
                different += digest_of(record["outputs"]["probabilities"]) != told[1]
    missing = sum(one not in logged for one in acknowledged)
    return {"acknowledged": len(acknowledged), "logged": len(logged), "missing": missing, "twice": twice,
            "different": different}  # fmt: skip
