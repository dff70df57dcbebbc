"""The limit across real processes: exact under contention, and nobody's death blocks the others (L11)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import OverloadError
from modelyard.limits.gcra import SharedGcra

TAKER = """
import sys
from modelyard.core.clock import SystemClock
from modelyard.limits.gcra import SharedGcra
gcra = SharedGcra.attach(int(sys.argv[1]), SystemClock())
print("ready", flush=True)
sys.stdin.readline()
slots = int(sys.argv[3])
for turn in range(int(sys.argv[2])):
    passed = gcra.take(turn % slots, 3600.0, 100).allowed
    sys.stdout.write("1" if passed else "0")
"""

HOLDER = """
import fcntl, sys, time
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 8, 8 * int(sys.argv[2]))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def state() -> Iterator[int]:
    descriptor = SharedGcra.create(10_000)
    yield descriptor
    os.close(descriptor)


def start(program: str, descriptor: int, *arguments: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(descriptor), *map(str, arguments)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def race(descriptor: int, takes_each: int, slots: int) -> str:
    takers = [start(TAKER, descriptor, takes_each, slots) for _ in range(3)]
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    return "".join(taker.communicate(timeout=60)[0] for taker in takers)


def test_exactly_a_hundred_of_a_thousand_pass(state: int) -> None:
    """1,000 takes at once by 3 processes on a limit of 100 per 100 h: exactly 100 pass."""
    verdicts = race(state, 334, 1)
    assert (len(verdicts), verdicts.count("1")) == (1002, 100)


def test_it_stays_exact_for_ten_clients_under_long_contention(state: int) -> None:
    """60,000 takes by 3 processes on 10 clients of 100 each: exactly 1,000 pass."""
    assert race(state, 20_000, 10).count("1") == 1000


def test_a_killed_holder_blocks_nobody(state: int) -> None:
    """kill -9 of a process that holds a client's lock: the next take passes."""
    holder = start(HOLDER, state, 7)
    gcra = SharedGcra.attach(state, SystemClock())
    try:
        with pytest.raises(OverloadError):
            gcra.take(7, 60.0, 5)
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=10)
        assert gcra.take(7, 60.0, 5).allowed
    finally:
        holder.kill()
        gcra.close()


def test_a_stopped_holder_costs_a_bounded_wait_and_only_its_client(state: int) -> None:
    """A process frozen with the lock (SIGSTOP): its client gets server_busy within the bound, others are served, and
    all is well when it goes on and dies."""
    holder = start(HOLDER, state, 7)
    holder.send_signal(signal.SIGSTOP)
    gcra = SharedGcra.attach(state, SystemClock())
    try:
        started = time.monotonic()
        with pytest.raises(OverloadError) as refused:
            gcra.take(7, 60.0, 5)
        assert time.monotonic() - started < 5.0
        assert refused.value.code == "server_busy"
        assert gcra.take(8, 60.0, 5).allowed
    finally:
        holder.kill()
        holder.communicate(timeout=10)
        gcra.close()
