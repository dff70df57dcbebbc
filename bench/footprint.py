"""Start to first prediction, memory, the drain's rate, and ONNX Runtime in process."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
from pathlib import Path
from statistics import median

import numpy as np

from bench.bodies import Body
from bench.load import measure
from bench.models import Model
from bench.servers import HERE, MODELYARD, SERVER_CORE, SPOOL, Target, ask, fastapi_handler, free_port, modelyard
from modelyard.storage.sql.open import DATABASE_FILE


def start_to_first_prediction(command: list[str], target: Target, body: Body, times: int = 5) -> float:
    """Seconds from the start of the process to the first answered prediction, median; both cores are free."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MODELYARD_LOG__LEVEL": "warning"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                ask(target, body)
                break
            except (urllib.error.URLError, OSError):
                if time.perf_counter() - begin > 60:
                    raise RuntimeError("no first prediction within a minute") from None
                time.sleep(0.005)
        found.append(time.perf_counter() - begin)
        process.send_signal(signal.SIGTERM)
        process.wait(40)
    return median(found)


def starts(data: Path, key: str, model: Model, body: Body) -> dict[str, float]:
    """Ours and the handler's, seconds."""
    port, other = free_port(), free_port()
    ours = [*MODELYARD, "serve", "--data", str(data), "--port", str(port)]
    handler = [sys.executable, str(HERE / "fastapi_handler.py"), str(model.path), str(other)]
    return {
        "modelyard_s": start_to_first_prediction(
            ours, Target(f"http://127.0.0.1:{port}/v2/models/m/infer", {"x-api-key": key}), body
        ),
        "handler_s": start_to_first_prediction(handler, Target(f"http://127.0.0.1:{other}/predict"), body),
    }


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and all its descendants (proc(5), smaps_rollup), MiB."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def memory(data: Path, key: str, models: list[Model], body: Body, folder: Path) -> dict[str, float]:
    """PSS in MiB of three models: the handler's, ours with 1 and 4 workers, idle and after load."""
    found: dict[str, float] = {}
    with fastapi_handler(*[model.path for model in models]) as target:
        ask(target, body)
        found["handler_idle"] = memory_mb(target.pid)
        measure(target, body, 16, 3, folder)
        found["handler_loaded"] = memory_mb(target.pid)
    for workers in (1, 4):
        with modelyard(data, key, workers=workers) as target:
            ask(target, body)
            time.sleep(2)  # until the drain has taken it, and the management application is built
            found[f"modelyard_{workers}_idle"] = memory_mb(target.pid)
            measure(target, body, 16, 3, folder)
            found[f"modelyard_{workers}_loaded"] = memory_mb(target.pid)
    return found


def drain_rate(data: Path, key: str, body: Body, folder: Path, seconds: float) -> dict[str, float]:
    """Records a second that the drain moves from a spool that load has filled, alone on its core."""
    # Not drained meanwhile: its process sleeps for longer than the load takes.
    quiet = {"MODELYARD_JOURNAL__DRAIN_INTERVAL_S": "600"}
    with modelyard(data, key, quiet) as target:
        for child in Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split():
            if b"entry.drain" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGSTOP)
                drain = int(child)
        measure(target, body, 64, seconds, folder)
        spool = sum(path.stat().st_size for path in (data / "spool").glob("*.spool"))
        os.kill(drain, signal.SIGKILL)
    code = (
        "import sys,time\n"
        "from modelyard.app.services import open_services\n"
        "from modelyard.core.settings import load_settings\n"
        "services=open_services(load_settings(data=sys.argv[1]))\n"
        "b=time.perf_counter();c=time.process_time();services.drain(None)\n"
        "print(time.perf_counter()-b,time.process_time()-c)\n"
    )
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-c", code, str(data)]
    environment = {**os.environ, "MODELYARD_JOURNAL__MAX_SPOOL_BYTES": SPOOL}
    done = subprocess.run(command, check=True, capture_output=True, env=environment, text=True)
    took, cpu_s = map(float, done.stdout.split()[-2:])
    with contextlib.closing(sqlite3.connect(data / DATABASE_FILE)) as database:
        (count,) = database.execute("SELECT count(*) FROM predictions").fetchone()
    return {
        "records": count,
        "seconds": round(took, 3),
        "records_per_s": round(count / took, 1),
        "records_per_cpu_s": round(count / cpu_s, 1),
        "bytes_per_record": round(spool / max(count, 1), 1),
    }


def in_process(model: Model, count: int, seconds: float = 3.0) -> float:
    """Runs a second of ONNX Runtime itself, one thread, on the server's core."""
    code = (
        "import sys,time,numpy as np,onnxruntime as ort\n"
        "o=ort.SessionOptions();o.intra_op_num_threads=1\n"
        "s=ort.InferenceSession(sys.argv[1],o,providers=['CPUExecutionProvider'])\n"
        "x=np.load(sys.argv[2]);n=s.get_inputs()[0].name\n"
        "s.run(None,{n:x});b=time.perf_counter();c=0\n"
        "while time.perf_counter()-b<float(sys.argv[3]): s.run(None,{n:x});c+=1\n"
        "print(c/(time.perf_counter()-b))\n"
    )
    rows = model.path.with_suffix(".npy")
    np.save(rows, model.rows[:count].astype(np.float32))
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-c", code, str(model.path), str(rows), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
