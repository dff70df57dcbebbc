"""kill -9 of workers and of the drain, at random moments: every acknowledged record is in the log once (P1, K)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.drain import Drain
from modelyard.journal.ports import RecordFilter
from modelyard.journal.spool import spool_files
from modelyard.storage.sql.open import open_stores
from modelyard.testing import version

WORKER = """
import itertools, os, pathlib, select, sys
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import encode_frame
from modelyard.journal.ids import PredictionIds, new_epoch
from modelyard.journal.spool import SpoolWriter
from modelyard.testing import prediction_record

data, manifest = pathlib.Path(sys.argv[1]), sys.argv[2]
epoch = new_epoch()
ids = PredictionIds(epoch)
writer = SpoolWriter(data / "spool", epoch, JournalSettings(max_file_bytes=32768), SystemClock())
acks = os.open(data / f"acks-{epoch:x}", os.O_WRONLY | os.O_CREAT)
answer = b'{"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[2.0,4.0]}]}'
print("ready", flush=True)
for turn in itertools.count():
    made = [ids.next() for _ in range(1 + turn % 16)]
    parts = []
    for one in made:
        request = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,%d]}]}' % turn
        parts += encode_frame(prediction_record(one, manifest=manifest).header, request, answer)
    writer.append(parts)
    os.write(acks, "".join(f"{one} {turn}\\n" for one in made).encode())
    if turn % 100 == 0:
        writer.poll()
    select.select([0], [], [], 0.001)
"""

DRAIN = """
import pathlib, signal, sys, threading
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.drain import Drain
from modelyard.storage.sql.open import open_stores

data = pathlib.Path(sys.argv[1])
stores = open_stores(Settings(data=data), data)
print("ready", flush=True)
journal = JournalSettings(drain_interval_s=0.005, drain_batch=50)
Drain(data / "spool", stores.sink, None, journal, SystemClock()).run(threading.Event())
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        end(process)


def start(processes: list[subprocess.Popen[str]], program: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


def acknowledged(data: Path) -> dict[str, int]:
    """Every id that a worker was told is written, with the number its request held."""
    acked = {}
    for path in data.glob("acks-*"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                one, turn = line.split()
                acked[one] = int(turn)
    return acked


def ack_bytes(data: Path) -> int:
    """How much was acknowledged so far; about 30 bytes each."""
    return sum(path.stat().st_size for path in data.glob("acks-*"))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_every_acknowledged_record_is_stored_once_whatever_is_killed(
    tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    """Nine kills of writing workers and of the drain between them, then one last drain: what was acknowledged is
    in the database exactly once with its own values, nothing is quarantined or damaged, and no file is left."""
    seeded, published = random.Random(20260101), version()
    stores = open_stores(Settings(data=tmp_path), tmp_path)
    stores.registry.add_version(published)
    running = [start(processes, WORKER, str(tmp_path), published.digest) for _ in range(2)]
    drain = start(processes, DRAIN, str(tmp_path))
    for kill in range(9):
        goal = ack_bytes(tmp_path) + 30 * seeded.randrange(300, 900)
        until(lambda goal=goal: ack_bytes(tmp_path) >= goal)  # type: ignore[misc]
        if kill % 3 == 2:
            end(drain)
            drain = start(processes, DRAIN, str(tmp_path))
        else:
            end(running.pop(0))
            running.append(start(processes, WORKER, str(tmp_path), published.digest))
    for process in (*running, drain):
        end(process)

    acked = acknowledged(tmp_path)
    final = Drain(tmp_path / "spool", stores.sink, None, JournalSettings(), SystemClock())
    until(lambda: final.step().records == 0)
    final.close()
    logged = {
        record["id"]: (record["inputs"], record["outputs"], record["flag"])
        for chunk in stores.log.export(RecordFilter(), 1000)
        for record in chunk
    }
    stores.close()
    assert len(acked) > 3000
    assert acked.keys() - logged.keys() == set()
    # A turn that was written whole and not yet acknowledged when its worker died may be logged; nothing else.
    assert len(logged) - len(acked) <= 9 * 16
    for one, turn in acked.items():
        assert logged[one] == ({"x": [{"a": 1, "b": turn}]}, {"y": [[2.0, 4.0]]}, "")
    assert spool_files(tmp_path / "spool") == []
    assert list((tmp_path / "spool").glob("*.damaged")) == []


TORN = """
import os, pathlib, sys
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import encode_frame
from modelyard.journal.spool import SpoolWriter
from modelyard.testing import prediction_record

writer = SpoolWriter(pathlib.Path(sys.argv[1]), 7, JournalSettings(), SystemClock())
def frames(one):
    return list(encode_frame(prediction_record(one).header, b"q" * 100, b"a"))
writer.append(frames("acknowledged"))
whole, cut = os.write, int(sys.argv[2])
def torn(descriptor, data):
    whole(descriptor, bytes(data[:cut]))
    os.kill(os.getpid(), 9)
os.write = torn
writer.append(frames("one") + frames("two"))
"""


@pytest.mark.parametrize("cut", [1, 17, 60, 300, 420])
def test_a_worker_killed_inside_its_write_leaves_whole_turns(tmp_path: Path, cut: int) -> None:
    """kill -9 with any part of a turn on disk, one whole frame included: the turn is discarded as a whole, the
    acknowledged one before it arrives, and the bytes are counted."""
    killed = subprocess.run([sys.executable, "-c", TORN, str(tmp_path), str(cut)], timeout=30)
    assert killed.returncode == -signal.SIGKILL
    data = tmp_path / "data"
    stores = open_stores(Settings(data=data), data)
    drain = Drain(tmp_path, stores.sink, None, JournalSettings(), SystemClock())
    report = drain.step()
    drain.close()
    assert (report.records, report.bad_bytes, report.files_done) == (1, cut, 1)
    assert stores.log.get("acknowledged")["id"] == "acknowledged"
    stores.close()
    assert spool_files(tmp_path) == []
