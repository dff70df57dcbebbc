"""The parts of the jail: frames and tensors, the filter of system calls, trials that can fail, the meter."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jailed import jailed, python_model
from modelyard.core.errors import ModelError, PublishError
from modelyard.core.types import DATATYPES, Array
from modelyard.runtimes.jail import process, watch
from modelyard.runtimes.jail.inside import seccomp, trials
from modelyard.runtimes.refusals import MAX_REASON_CHARS, reason
from modelyard.runtimes.remote import process as remote
from modelyard.runtimes.remote.area import Area
from modelyard.runtimes.remote.process import RemoteProcess
from modelyard.runtimes.remote.wire import (
    LENGTH,
    MAX_FRAME_BYTES,
    DoesNotFitError,
    Placed,
    WrongTensorError,
    place,
    take,
)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 2, 2), (7,), ()])
def test_tensors_go_through_the_memory_unchanged(datatype: str, shape: tuple[int, ...]) -> None:
    """Every datatype and shape, contiguous or not: what is taken is what was placed, and a copy."""
    draw = np.random.default_rng(5)
    array: Array = draw.integers(0, 2, shape).astype(DATATYPES[datatype])
    if datatype == "BYTES":
        texts = np.empty(array.size, dtype=np.object_)
        texts[:] = [b"", b"\xc3\xa9t\xc3\xa9", bytes(300)][: array.size] + [b"x"] * max(0, array.size - 3)
        array = texts.reshape(shape)
    memory = memoryview(bytearray(16_384))
    placed = place({"a": array, "b": array.T}, {"a": datatype, "b": datatype}, memory)
    for one, given in zip(placed, (array, array.T), strict=True):
        got = take(one, memory)
        assert got.dtype == given.dtype
        np.testing.assert_array_equal(got, given)
    kept = take(placed[0], memory)
    memory[:] = bytes(len(memory))
    np.testing.assert_array_equal(kept, array)


def test_what_does_not_fit_is_not_written() -> None:
    """One byte more than the memory has."""
    memory = memoryview(bytearray(64))
    assert place({"a": np.zeros(8)}, {"a": "FP64"}, memory)
    for array in (np.zeros(9), np.zeros((2, 33))):
        with pytest.raises(DoesNotFitError):
            place({"a": array}, {"a": "FP64"}, memory)
    with pytest.raises(DoesNotFitError):
        place({"a": np.array([bytes(64)], dtype=object)}, {"a": "BYTES"}, memory)


@pytest.mark.parametrize(
    "placed",
    [
        Placed("a", "FP64", (1,), 0, 16), Placed("a", "FP64", (2,), 0, 8), Placed("a", "FP64", (-1,), 0, 8),
        Placed("a", "FP64", (-1, -1), 0, 8), Placed("a", "FP64", (1,), -8, 8), Placed("a", "FP64", (1,), 60, 8),
        Placed("a", "FP64", (2**62,), 0, 2**65), Placed("a", "FP64", (1,) * 64, 0, 8), Placed("a", "FP9", (1,), 0, 8),
        Placed("a", "BYTES", (1,), 0, 8), Placed("a", "BYTES", (2,), 8, 3), Placed("a", "", (), 0, 0),
        Placed("a", "BYTES", (), 0, 0), Placed("a", "FP64", (1, 0, 2**63), 0, 0),
        Placed("a", "FP64", (1, 0, 2**62, 8), 0, 0), Placed("a", "BOOL", (0, 2**64 - 1), 0, 0),
        Placed("a", "BYTES", (0, 2**64 - 1), 0, 1),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_are_refused(placed: Placed) -> None:
    """Sizes, places and datatypes that a hostile process may claim."""
    memory = memoryview(bytearray(b"\xc1" * 64))
    with pytest.raises(WrongTensorError):
        take(placed, memory)


def test_what_a_model_says_is_a_short_plain_sentence() -> None:
    """No control, no turn of the writing's direction, no line or page of its own; and it is read in no time, however
    long it is and whatever it repeats: this side's interpreter waits meanwhile."""
    said = reason(ValueError('it\n\x1b[31m broke\x9b31m \u202e\u2028{"event": 1}\x85 in /etc/passwd  \x00'))
    assert said == 'it [31m broke 31m {"event": 1} in (path)'
    until_s = time.monotonic() + 5
    for part in ("/onnxruntime_src/x", "/a" * 50, "[ONNXRuntimeError] : 1 : ", "a.", " "):
        assert len(reason(ValueError(part * 200_000))) <= MAX_REASON_CHARS
    assert time.monotonic() < until_s


def test_a_boolean_is_zero_or_one() -> None:
    """Whatever byte lies in the memory."""
    got = take(Placed("a", "BOOL", (3,), 0, 3), memoryview(bytearray(b"\x00\x07\xff")))
    assert got.view(np.uint8).tolist() == [0, 1, 1]


def _decide(arch: str, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the filter says to a call: a small machine for the instructions that it is made of."""
    data = {0: number, 4: seccomp.ARCHES[arch]}
    for i in range(6):
        value = arguments[i] if i < len(arguments) else 0
        data[16 + 8 * i], data[20 + 8 * i] = value & 0xFFFFFFFF, value >> 32
    program, at, register = seccomp.jail_filter(arch, 77), 0, 0
    while True:
        code, yes, no, constant = program[at]
        at += 1
        if code == seccomp.LOAD:
            register = data[constant]
        elif code == seccomp.RETURN:
            return constant
        else:
            held = {seccomp.EQUAL: register == constant, seccomp.AT_LEAST: register >= constant,
                    seccomp.ANY_BIT: bool(register & constant)}[code]  # fmt: skip
            at += yes if held else no


ALLOW, REFUSE = seccomp.ALLOW, seccomp.REFUSE | 1
OPENAT = {"x86_64": 257, "aarch64": 56}
CLONE = {"x86_64": 56, "aarch64": 220}
KILL = {"x86_64": 62, "aarch64": 129}
PRCTL = {"x86_64": 157, "aarch64": 167}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
SOCKET = {"x86_64": 41, "aarch64": 198}
EXECVE = {"x86_64": 59, "aarch64": 221}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_filter_allows_computing_and_nothing_else(arch: str) -> None:
    """On both machines: reading yes, writing no; threads yes, processes no; its own process yes, others no; what nobody
    thought of no."""
    thread = 0x003D0F00
    for number, arguments, verdict in (
        (OPENAT[arch], (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
        (OPENAT[arch], (0, 0, os.O_WRONLY), REFUSE),
        (OPENAT[arch], (0, 0, os.O_RDWR | os.O_CREAT), REFUSE),
        (OPENAT[arch], (0, 0, 0o20200000), REFUSE),
        (CLONE[arch], (thread,), ALLOW),
        (CLONE[arch], (17,), REFUSE),
        (CLONE[arch], (thread | 0x40000000,), REFUSE),
        (KILL[arch], (77, 9), ALLOW),
        (KILL[arch], (78, 9), REFUSE),
        (KILL[arch], (2**32 - 1, 9), REFUSE),
        (PRCTL[arch], (15,), ALLOW),
        (PRCTL[arch], (1,), REFUSE),
        (PRCTL[arch], (4, 1), REFUSE),
        (PRLIMIT[arch], (0, 7, 0, 4096), ALLOW),
        (PRLIMIT[arch], (0, 7, 4096, 0), REFUSE),
        (PRLIMIT[arch], (0, 7, 1 << 40, 0), REFUSE),
        (PRLIMIT[arch], (1, 7, 0, 4096), REFUSE),
        (SOCKET[arch], (2, 1, 0), REFUSE),
        (EXECVE[arch], (), REFUSE),
        (435, (), seccomp.REFUSE | 38),
        (425, (), REFUSE),
        (999, (), REFUSE),
    ):
        assert _decide(arch, number, arguments) == verdict, (number, arguments)
    assert len(seccomp.jail_filter(arch, 77)) < 4096


def test_calls_of_another_machine_are_the_end() -> None:
    """32-bit calls (their numbers mean others) end the process; those of x32 are refused."""
    program = seccomp.jail_filter("x86_64", 77)
    assert program[1][3] == seccomp.ARCHES["x86_64"]
    assert program[2] == (seccomp.RETURN, 0, 0, seccomp.KILL_PROCESS)
    assert _decide("x86_64", 0x40000000 | 0) == REFUSE


LOOSE = """
import sys
import modelyard.runtimes.jail.inside.confine as confine
import modelyard.runtimes.jail.inside.seccomp as seccomp
import modelyard.runtimes.jail.inside.landlock as landlock
{change}
from modelyard.runtimes.jail.inside.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("landlock.read_only = lambda paths: None", "files"),
        ("confine.limit = lambda memory: None", "memory"),
        ("confine.drop_privileges = lambda: None", "privileges"),
        ("confine.die_with = lambda parent: None", "orphans"),
        ("import os; os.environ['AWS_SECRET_ACCESS_KEY'] = 'x'", "environment"),
        ("import os; os.dup2(0, 50)", "descriptors"),
        ("seccomp._SIMPLE = {**seccomp._SIMPLE, 'socket': (41, 198)}", "network"),
        ("confine.limit = lambda memory: None", "writes"),
        ("import resource; resource.setrlimit = lambda kind, bound, real=resource.setrlimit: "
         "None if kind == resource.RLIMIT_NPROC else real(kind, bound)", "processes"),
        ("seccomp._looked_at = lambda pid: {}; seccomp._SIMPLE = {**seccomp._SIMPLE, 'clone': (56, 220), "
         "'openat': (257, 56), 'fcntl': (72, 25), 'ioctl': (16, 29), 'prctl': (157, 167), 'prlimit64': (302, 261)}",
         "processes"),
        ("seccomp.OWN_OPTIONS = ()", "privileges"),
        ("def fail(*_): raise OSError(38, 'no such call')\nlandlock.read_only = fail", "files"),
    ],
)  # fmt: skip
def test_a_protection_that_is_not_there_is_named(
    change: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each protection left out, one after the other: its trial goes through, and the jail is refused by its name."""
    if broken == "privileges" and os.geteuid() != 0 and "drop" in change:
        return  # there is nothing to drop
    code = LOOSE.format(change=change)
    monkeypatch.setattr(process, "command", lambda orders: [sys.executable, "-P", "-c", code, orders])
    with pytest.raises(PublishError) as refused:
        jailed(python_model(tmp_path / "m"))
    assert refused.value.code == "jail_unavailable"
    assert broken in refused.value.detail["got"]
    assert f"`{broken}`" in refused.value.message


def test_a_jail_that_does_not_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends at once, or says nothing that can be read: jail_unavailable."""
    folder = python_model(tmp_path / "m")
    for code in ("", "import os, json, sys; os.write(json.loads(sys.argv[1])['channel'], b'hello world')"):
        monkeypatch.setattr(process, "command", lambda orders, code=code: [sys.executable, "-c", code, orders])
        with pytest.raises(PublishError) as refused:
            jailed(folder)
        assert refused.value.code == "jail_unavailable"


def test_an_error_that_is_no_refusal_is_a_trial_that_went_through() -> None:
    """That a host is not there does not say that the network is not."""
    with pytest.raises(trials.BrokenError):
        trials.refused("a file", os.open, "/nonexistent/x", os.O_RDONLY)
    with pytest.raises(trials.BrokenError):
        trials.refused("nothing", lambda: None)


def test_time_beside_the_runs_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs may use their threads' time; a little more is forgiven; beyond SPARE_CPU_S the process is ended, once."""
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch, "cpu_seconds", lambda pid: 0.0)
    ended: list[str] = []
    meter = watch.Meter(1, 2, ended.append)
    meter.begin()
    now[0] += 30
    meter.end()
    meter.look(now[0], 60.0)
    for second in range(1, 200):
        now[0] += 1
        meter.look(now[0], 60.0 + 0.01 * second)
    assert ended == []
    for second in range(1, 12):
        now[0] += 1
        meter.look(now[0], 62.0 + second)
    assert ended == [watch.SPINS]
    meter.look(now[0], 73.0, watch.MAX_THREADS)
    meter.look(now[0], 73.0, watch.MAX_THREADS + 1)
    assert ended == [watch.SPINS, watch.CROWDS]


def test_bounds_come_from_the_settings() -> None:
    """What the settings say is what a jail is held to."""
    from modelyard.core.settings import load_settings
    from modelyard.models.report import jail_bounds

    flags: dict[str, Any] = {"models.jail_memory_bytes": 2**30, "models.max_run_s": 3, "models.unhealthy_deaths": 2}
    bounds = process.JailBounds.of({"threads": 2, "jail": jail_bounds(load_settings(**flags).models)})
    assert msgspec.structs.asdict(bounds) == {
        "memory_bytes": 2**30, "tensor_bytes": 2**27, "run_s": 3.0, "load_s": 120.0, "threads": 2, "deaths": 2,
        "within_s": 60.0,
    }  # fmt: skip


class Dripping:
    """A channel on which there is always one more byte, and a clock that each costs a hundredth of a second."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.left = list(LENGTH.pack(MAX_FRAME_BYTES))

    def setblocking(self, _: bool) -> None:
        """It never would."""

    def fileno(self) -> int:
        """One that can be polled."""
        return 0

    def recv(self, _: int) -> bytes:
        """One byte."""
        self.now_s += 0.01
        return bytes([self.left.pop(0) if self.left else 0x20])


class Spoken(RemoteProcess):
    """A process that is nothing but a channel."""

    killed = False
    pid = 1

    def kill(self) -> None:
        """Notes it."""
        self.killed = True

    leave = kill

    def _ended(self) -> ModelError:
        raise AssertionError("the channel was not closed")


def test_a_reply_that_drips_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: a byte is always there before the wait for one would begin; the run ends all the same, and the process."""
    channel = Dripping()
    monkeypatch.setattr(remote.time, "monotonic", lambda: channel.now_s)
    area = Area("test", 4096)
    spoken = Spoken(channel, area)  # type: ignore[arg-type]
    with pytest.raises(ModelError) as failed:
        spoken.hear(1.0)
    assert failed.value.code == "model_timeout"
    assert spoken.killed
    area.close()


LAYERS = """
import numpy as np

class Model:
    def load(self, folder):
        self.weights = np.ones((2, 2048))

    def predict(self, inputs):
        wide = inputs["x"] @ self.weights
        for _ in range(3):
            wide = np.maximum(wide + 1.0, 0.0)
        return {"y": wide[:, :2]}
"""


def test_memory_that_a_run_freed_waits_for_the_next(tmp_path: Path) -> None:
    """Runs whose layers take megabytes get their pages from the kernel once, not each time anew."""
    loaded = jailed(python_model(tmp_path / "layers", LAYERS))
    try:
        rows = {"x": np.ones((100, 2))}
        for _ in range(5):
            loaded.run(rows, ())
        before = _page_faults(loaded.pid)
        for _ in range(20):
            loaded.run(rows, ())
        assert _page_faults(loaded.pid) - before < 20 * 10
    finally:
        loaded.close()


def _page_faults(pid: int | None) -> int:
    """Pages that the process got without a disk so far (proc(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
