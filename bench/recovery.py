"""`python -m bench.recovery`: what a lost data folder costs: how many answered records (RPO), how much time (RTO).

A server on a folder with so many records, predictions without a pause; `backup create` beside them; then kill -9 of
all its processes, the folder is deleted, `restore`, `serve`, until the first prediction is answered with the old key.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import models
from bench.bodies import Body, as_json
from bench.log_queries import fill
from bench.servers import MODELYARD, START_S, free_port, published

SIZES = (2_000, 1_000_000)
"""What the demo leaves, and a large log."""
BEFORE_S, AFTER_S = 3.0, 3.0
"""Load before the backup begins, and from its end to the kill."""
PATH = "/v2/models/m/infer"
ENVIRONMENT = {"MODELYARD_LOG__LEVEL": "warning", "MODELYARD_RETENTION__DAYS": "0"}


class Serving:
    """A server in processes of its own, and when it was started."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            [*MODELYARD, "serve", "--data", str(data), "--port", str(self.port)],
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def answers(self, key: str, body: bytes) -> float:
        """Waits for the first prediction that is answered; the seconds since the start."""
        while time.monotonic() - self.begun < START_S:
            try:
                if asked(self.port, key, body)[0] == 200:
                    return time.monotonic() - self.begun
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("it did not answer")

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as far as one can."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # it replaces nobody meanwhile
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (*map(int, children), pid):
            os.kill(each, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """In order."""
        self._process.terminate()
        self._process.wait(60)


class Load:
    """One caller that asks again as soon as it is answered; when each answer came, by its id."""

    def __init__(self, port: int, key: str, body: bytes) -> None:
        self.answered: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port, key, body), daemon=True)
        self._thread.start()

    def _run(self, port: int, key: str, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", PATH, body, {"x-api-key": key})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return  # it was killed
            if answer.status == 200:
                self.answered[str(answer.headers["x-prediction-id"])] = time.monotonic()

    def end(self) -> dict[str, float]:
        """All answers."""
        self._stop.set()
        self._thread.join(60)
        return self.answered


def asked(port: int, key: str, body: bytes) -> tuple[int, str]:
    """One prediction: status and id."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", PATH, body, {"x-api-key": key})
        answer = connection.getresponse()
        answer.read()
        return answer.status, str(answer.headers.get("x-prediction-id"))
    finally:
        connection.close()


def command(*words: str | Path) -> tuple[float, dict[str, Any]]:
    """A command to its end: the seconds, and its JSON."""
    begun = time.monotonic()
    ran = subprocess.run([*MODELYARD, *map(str, words), "--json"], check=True, capture_output=True)
    return time.monotonic() - begun, json.loads(ran.stdout)


def drill(folder: Path, model: Path, body: Body, records: int) -> dict[str, Any]:
    """One loss of a folder with so many records, and its recovery."""
    data, out, content = folder / "data", folder / "backup.tar", body.path.read_bytes()
    key = published(data, {"m": model})
    fill(data, records)
    serving = Serving(data)
    serving.answers(key, content)
    load = Load(serving.port, key, content)
    time.sleep(BEFORE_S)
    begun = time.monotonic()
    create_s, made = command("backup", "create", "--data", data, "--out", out)
    time.sleep(AFTER_S)
    killed = time.monotonic()
    serving.kill()
    answered = load.end()
    shutil.rmtree(data)
    restore_s, _ = command("restore", out, "--data", data)
    with closing(sqlite3.connect(data / "modelyard.db")) as connection:
        there = {row[0] for row in connection.execute("SELECT id FROM predictions WHERE client = 'bench'")}
    serving = Serving(data)
    start_s = serving.answers(key, content)
    rto_s = time.monotonic() - killed
    serving.stop()
    lacking = [at for one, at in answered.items() if one not in there]
    newest = max((at for one, at in answered.items() if one in there), default=begun)
    return {
        "records": records, "backup_bytes": made["size_bytes"], "waiting": made["waiting"],
        "answered": len(answered), "in_the_backup": len(answered) - len(lacking),
        "lacking_of_before_the_backup": sum(at < begun for at in lacking),
        "newest_in_it_before_the_kill_s": round(killed - newest, 2),
        "backup_began_before_the_kill_s": round(killed - begun, 2),
        "create_s": round(create_s, 2), "restore_s": round(restore_s, 2), "start_to_answer_s": round(start_s, 2),
        "rto_s": round(rto_s, 2),
    }  # fmt: skip


def main() -> None:
    """Runs the drills, prints them, writes bench/results/recovery.json."""
    parser = argparse.ArgumentParser(prog="bench.recovery", description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=list(SIZES), help="sizes of the log")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    chosen = parser.parse_args()
    drills = []
    for records in chosen.records:
        with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as named:
            folder = Path(named)
            model = models.tree(folder)
            drills.append(drill(folder, model.path, as_json(model, 1, folder), records))
    table = Table("", *(f"{one['records']:,} records" for one in drills), title="A lost data folder")
    for name in drills[0]:
        table.add_row(name.replace("_", " "), *(f"{one[name]:,}" for one in drills))
    Console().print(table)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_at_the_end": os.getloadavg()[0]}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "recovery.json").write_text(json.dumps({"machine": machine, "drills": drills}, indent=1) + "\n")


if __name__ == "__main__":
    main()
