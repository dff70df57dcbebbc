"""What is written before what, and a kill at each system call of worker, drain and publish (P1, P5, P6; K1, K3).

A kill keeps the page cache, so it proves nothing of power loss: for that the order of the calls is looked at.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from figures import record
from server import RunningServer, clean_environment, command, until
from stock import Stock
from straced import SENDS, STORES, SYNCS, attached, read_trace, run_killed

from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.drain import Drain
from modelyard.journal.frame import encode_frame
from modelyard.journal.ports import RecordFilter
from modelyard.journal.spool import SpoolWriter, spool_files
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record, version

Stocked = Callable[..., RunningServer]
PREDICT = "/v2/models/cancer/infer"
REQUESTS = 3


def body(row: int) -> str:
    return json.dumps(trained.infer_body(X=trained.cancer().rows[row : row + 1]))


@pytest.mark.parametrize("durability", ["process", "host"])
def test_the_record_is_written_before_the_answer_leaves(
    stocked: Stocked, stock: Stock, tmp_path: Path, durability: str
) -> None:
    """P1 K3: for each answered prediction the kernel saw the write of its record into the spool end before the answer's
    send began; with `host` durability an fdatasync of the spool began after that write and ended before the send."""
    server = stocked(workers=1, settings={"journal.durability": durability})
    (pid,) = server.worker_pids()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    ids = []
    traced = ",".join({*SENDS, *STORES, *SYNCS})
    with attached(pid, tmp_path / "trace", "-e", f"trace={traced}"):
        for row in range(20):
            connection.request("POST", PREDICT, body(row), {"x-api-key": stock.key})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
            ids.append(answer.headers["x-prediction-id"])
    connection.close()
    server.stop()
    calls = read_trace(tmp_path / "trace")
    for one in ids:
        named = [(at, call) for at, call in enumerate(calls) if one in call.text]
        sent = next(at for at, call in named if call.name in SENDS and "HTTP/1.1 200" in call.text)
        written = next(at for at, call in named if call.name in STORES and "/spool/" in call.text and call.over)
        assert written < sent, "the answer left before its record was written"
        if durability == "host":
            synced = [c for c in calls[written:sent] if c.name in SYNCS and "/spool/" in c.text and c.over]
            assert synced, "the answer left before its record was synced"


def ask_until_cut(port: int, key: str) -> tuple[list[str], bool]:
    """Some requests on one connection: the ids that were acknowledged, and whether it was cut."""
    acked: list[str] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        for row in range(REQUESTS):
            connection.request("POST", PREDICT, body(row), {"x-api-key": key})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            acked.append(answer.headers["x-prediction-id"])
    except (http.client.HTTPException, OSError):
        return acked, True
    finally:
        connection.close()
    return acked, False


def sweep_worker(server: RunningServer, key: str, tmp_path: Path, calls: str, points: list[int]) -> dict[str, int]:
    """Kills the worker at the N-th such call while it answers, for each N or until it survives; what was acknowledged
    is on record once, at the end."""
    acknowledged: list[str] = []
    kills = 0
    for nth in points:
        until(lambda: server.ask("GET", "/v2/health/ready", key=None, fresh=True).status == 200, 30, "ready")
        (pid,) = server.worker_pids()
        injected = f"inject={calls}:signal=SIGKILL:when={nth}"
        with attached(pid, tmp_path / "trace", "-e", f"trace={calls}", "-e", injected):
            acked, cut = ask_until_cut(server.port, key)
        acknowledged += acked
        kills += cut
        until(lambda old=pid, cut=cut: not cut or server.worker_pids() not in ([], [old]), 30, "a successor")
        if not cut and len(points) > 20:
            break
    until(lambda: server.ask("GET", "/v2/health/ready", key=None, fresh=True).status == 200, 30, "ready")
    server.stop()
    done = command("predictions", "export", "--format", "jsonl", "--status", "2", "--data", server.data)
    logged = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert len(logged) == len(set(logged)), "a record is there twice"
    assert set(acknowledged) <= set(logged), "an acknowledged prediction is not on record"
    return {"points": len(points), "kills": kills, "acknowledged": len(acknowledged), "missing": 0}


NEVER = {"models.unhealthy_deaths": "100000"}


def test_a_worker_killed_at_some_calls_loses_nothing(stocked: Stocked, stock: Stock, tmp_path: Path) -> None:
    """K1 K3 P1: SIGKILL at chosen writes while a worker answers (before the record's, between record and answer)."""
    server = stocked(workers=1, settings=NEVER)
    record("K3 worker, short", **sweep_worker(server, stock.key, tmp_path, "write", [2, 3, 5]))


@pytest.mark.long
@pytest.mark.parametrize(
    ("calls", "durability"),
    [("read", "process"), ("write", "process"), ("rename", "process"), ("openat", "process"),
     ("write", "host"), ("fdatasync", "host"), ("fsync", "host"), ("rename", "host")],
)  # fmt: skip
def test_a_worker_killed_at_every_call_loses_nothing(
    stocked: Stocked, stock: Stock, tmp_path: Path, calls: str, durability: str
) -> None:
    """K1 K3 P1: the same at each N from 1 until the worker survives, for each kind of call."""
    server = stocked(workers=1, settings={**NEVER, "journal.durability": durability})
    found = sweep_worker(server, stock.key, tmp_path, calls, list(range(1, 61)))
    record(f"K3 worker, {calls}, {durability}", **found)


DRAIN = """
import pathlib, sys
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.journal.drain import Drain
from modelyard.storage.sql.open import open_stores
data = pathlib.Path(sys.argv[1])
stores = open_stores(Settings(data=data), data)
drain = Drain(data / "spool", stores.sink, None, JournalSettings(drain_batch=5), SystemClock())
while drain.step().records:
    pass
drain.close()
stores.close()
"""
RECORDS = 17


def sweep_drain(data: Path, calls: str, points: list[int]) -> dict[str, int]:
    """A drain killed at the N-th call, again and again on the same folder; a last one brings in the rest: each record
    is in the database once, no file is left."""
    stores = open_stores(Settings(data=data), data)
    published = version()
    stores.registry.add_version(published)
    written: list[str] = []
    kills = 0
    for nth in points:
        writer = SpoolWriter(data / "spool", 1000 + nth, JournalSettings(max_file_bytes=4096), SystemClock())
        for number in range(RECORDS):
            one = f"{nth}-{number}"
            header = prediction_record(one, manifest=published.digest).header
            writer.append(encode_frame(header, b'{"inputs":[]}', b"{}"))
            written.append(one)
        writer.close()
        killed = run_killed([sys.executable, "-c", DRAIN, str(data)], calls, nth)
        kills += killed
        if not killed:
            break
    final = Drain(data / "spool", stores.sink, None, JournalSettings(), SystemClock())
    until(lambda: final.step().records == 0, 30, "the last drain")
    final.close()
    logged = [row["id"] for chunk in stores.log.export(RecordFilter(), 1000) for row in chunk]
    stores.close()
    assert sorted(logged) == sorted(written)
    assert spool_files(data / "spool") == []
    return {"kills": kills, "records": len(written), "missing": 0}


def test_a_drain_killed_at_some_calls_stores_each_record_once(tmp_path: Path) -> None:
    """K3 P1: SIGKILL at chosen writes to the database."""
    record("K3 drain, short", **sweep_drain(tmp_path / "data", "pwrite64", [3, 12]))


@pytest.mark.long
@pytest.mark.parametrize("calls", ["pwrite64", "unlink", "fdatasync", "openat"])
def test_a_drain_killed_at_every_call_stores_each_record_once(tmp_path: Path, calls: str) -> None:
    """K3 P1: at each N until the drain survives (openat: the first 200 hit Python's own start; every tenth)."""
    points = list(range(1, 1000, 10)) if calls == "openat" else list(range(1, 200))
    record(f"K3 drain, {calls}", **sweep_drain(tmp_path / "data", calls, points))


def sweep_publish(folder: Path, stock: Stock, calls: str, points: list[int]) -> dict[str, int]:
    """A publish killed at the N-th call: the version is there whole and answers as the model does, or is not there, and
    the same publish succeeds afterwards."""
    data, model = folder / "data", folder / "model.onnx"
    stock.copy(data)
    model.write_bytes(trained.digits().content)
    whole = kills = 0
    for nth in points:
        name = f"digits-{nth}"
        arguments = [sys.executable, "-m", "modelyard.cli.main", "publish", name, str(model), "--data", str(data)]
        killed = run_killed(arguments, calls, nth, clean_environment())
        kills += killed
        shown = command("models", "show", name, "--data", data, "--json")
        whole += shown.returncode == 0
        again = command("publish", name, model, "--version", "1", "--data", data, "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["created"] is (shown.returncode != 0)
        if not killed:
            break
    assert command("models", "list", "--data", data).returncode == 0
    left = [path for path in (data / "artifacts").rglob("*") if path.name.startswith(".") and path.is_dir()]
    return {"kills": kills, "already_whole": whole, "left_behind": len(left)}


def test_a_publish_killed_at_some_calls_is_whole_or_absent(tmp_path: Path, stock: Stock) -> None:
    """K3 P5 P6: SIGKILL at a rename of the artifact, and at a write to the database."""
    record("K3 publish, short", **sweep_publish(tmp_path, stock, "rename", [1]))


@pytest.mark.long
@pytest.mark.parametrize("calls", ["rename", "fsync", "pwrite64", "fdatasync"])
def test_a_publish_killed_at_every_call_is_whole_or_absent(tmp_path: Path, stock: Stock, calls: str) -> None:
    """K3 P5 P6: at each N until the publish survives."""
    record(f"K3 publish, {calls}", **sweep_publish(tmp_path, stock, calls, list(range(1, 60))))
