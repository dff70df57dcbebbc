"""strace: what a process asks of the kernel, in which order, and a kill at exactly the N-th such call."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ATTACH_WITHIN_S = 20.0
LEAVE_WITHIN_S = 2.0
SENDS = ("write", "writev", "sendto", "sendmsg")
STORES = ("write", "writev", "pwrite64", "pwritev")
SYNCS = ("fdatasync", "fsync")
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")


def strace() -> str:
    """Its path; the test is skipped without it."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    return found


@dataclass(frozen=True)
class SystemCall:
    """One line of a trace: the call's name, its text, and whether it is over at this line."""

    thread: str
    name: str
    text: str
    over: bool


def read_trace(path: Path) -> list[SystemCall]:
    """The calls in the order in which the kernel showed them. A call of two lines has its arguments on both."""
    calls: list[SystemCall] = []
    begun: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        thread, resumed, name, rest = found.groups()
        unfinished = rest.endswith("<unfinished ...>")
        text = begun.pop(thread, "") + rest if resumed else rest
        if unfinished:
            begun[thread] = rest
        calls.append(SystemCall(thread, resumed or name, text, not unfinished))
    return calls


@contextmanager
def attached(pid: int, trace: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """strace on a running process and all its threads, for the length of the context; ended by SIGINT."""
    arguments = [strace(), "-f", "-y", "-s", "200000", "-o", str(trace), *options, "-p", str(pid)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + ATTACH_WITHIN_S
        while not _all_traced(pid):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "strace does not attach"
            time.sleep(0.01)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=LEAVE_WITHIN_S)
        except subprocess.TimeoutExpired:  # it waits for a thread of a process that was killed
            process.kill()
            process.communicate()


def _all_traced(pid: int) -> bool:
    """Whether every thread has a tracer."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0" not in (thread / "status").read_text() for thread in threads)
    except FileNotFoundError:
        return False


def run_killed(arguments: list[str], calls: str, nth: int, env: dict[str, str] | None = None) -> bool:
    """Runs a program that is killed at its N-th call of this kind (of each thread); False if it ended before that."""
    injected = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={nth}"]
    done = subprocess.run(
        [strace(), "-f", "-o", "/dev/null", *injected, *arguments], capture_output=True, timeout=120, env=env
    )
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed or done.returncode == 0, done.stderr[-2000:]
    return killed
