"""Wall clocks that jump: stamps change, nothing else (F11, P10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from figures import record
from server import RunningServer, until
from stock import Stock

CANCER = "/v2/models/cancer/infer"
JUMPS = ("+0", "-1d", "+1d", "+30y", "-20y", "+0")


def libfaketime() -> str:
    """The library that shifts a process's wall clock; the test is skipped without it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (apt-get install libfaketime)")
    return str(found[0])


@pytest.mark.long
def test_a_clock_that_jumps_by_days_and_decades(
    stocked: Callable[..., RunningServer], stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F11 P10: the wall clock of all processes goes back a day, on a day, 30 years on, 20 back: every prediction is
    answered right and logged, a client that has used up its hour's allowance stays refused whatever the clock says,
    and no worker is replaced."""
    shift = tmp_path / "shift"
    shift.write_text(JUMPS[0])
    # libfaketime 0.9.10 with a true monotonic clock refuses every time.sleep of Python 3.11 (clock_nanosleep: EINVAL).
    (tmp_path / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", libfaketime())
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(shift))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    server = stocked(workers=1)
    (pid,) = server.worker_pids()
    spent = server.create_key("spent", rate="5/h")["key"]
    table = trained.cancer()
    asked = 0
    for jump in JUMPS:
        shift.write_text(jump)
        for row in range(20):
            reply = server.ask("POST", CANCER, trained.infer_body(X=table.rows[row : row + 1]), key=stock.key)
            assert reply.status == 200, (jump, reply.body)
            asked += 1
        passed = sum(
            server.ask("POST", CANCER, trained.infer_body(X=table.rows[:1]), key=spent).status == 200 for _ in range(8)
        )
        assert passed == (5 if jump is JUMPS[0] and asked == 20 else 0), (jump, passed)
        asked += passed
    until(lambda: server.count(status="2") == asked, 30, "all in the log")
    assert server.worker_pids() == [pid]
    record("F11 clock jumps", jumps=len(JUMPS), predictions=asked, logged=asked)
    server.stop()
