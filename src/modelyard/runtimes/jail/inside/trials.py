"""The jail tries to break itself: one trial for each protection, in the confined process, before a model is loaded.

A trial holds if what it attempts is refused by the kernel. Nothing that it attempts would do harm if it went through.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

DENIED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
GET_PDEATHSIG, GET_DUMPABLE, GET_NO_NEW_PRIVS = 2, 3, 39
PTRACE_ATTACH = 16
READ_SEARCH = 1 << 2
STANDARD = (0, 1, 2)
MOST_TASKS = 32_768
ENVIRONMENT = frozenset({
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "HOME", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "JOBLIB_MULTIPROCESSING", "KMP_INIT_AT_FORK",
})  # fmt: skip
"""All that a jail's environment may hold."""


class BrokenError(Exception):
    """A trial went through; says what could be done."""


def run_trials(orders: Mapping[str, Any]) -> dict[str, str]:
    """What came of each trial, by the protection's name: "" if it held, else what could be done."""
    trials: dict[str, Callable[[], None]] = {
        "network": try_network,
        "processes": try_processes,
        "writes": lambda: try_writes(Path(orders["folder"]), str(orders["entry"])),
        "files": lambda: try_files(Path(orders["folder"])),
        "memory": lambda: try_memory(int(orders["memory_bytes"])),
        "cpu": try_cpu,
        "environment": lambda: try_environment(os.environ),
        "privileges": try_privileges,
        "tracing": try_tracing,
        "signals": lambda: refused("a signal to the server", os.kill, os.getppid(), 0),
        "descriptors": lambda: try_descriptors((*STANDARD, orders["channel"], orders["area"])),
        "orphans": lambda: _demand(_asked(GET_PDEATHSIG) == signal.SIGKILL, "it would outlive the server"),
    }
    return {name: _outcome(trial) for name, trial in trials.items()}


def _outcome(trial: Callable[[], None]) -> str:
    try:
        trial()
    except BrokenError as error:
        return str(error)
    except Exception as error:
        return f"the trial itself failed: {type(error).__name__}: {str(error)[:100]}"
    return ""


def refused(what: str, attempt: Callable[..., Any], *arguments: Any) -> None:
    """BrokenError unless the kernel refuses the attempt."""
    try:
        attempt(*arguments)
    except OSError as error:
        if error.errno in DENIED:
            return
        raise BrokenError(f"{what} was not refused ({error.strerror})") from None
    raise BrokenError(f"{what} was not refused")


def _demand(held: bool, otherwise: str) -> None:
    if not held:
        raise BrokenError(otherwise)


def try_network() -> None:
    """No socket of any family."""
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        refused(f"a socket of the family {family.name}", socket.socket, family, socket.SOCK_DGRAM)
    refused("a pair of sockets", socket.socketpair)


def try_processes() -> None:
    """No fork, no program, by no call; not as many threads as there is room for."""
    refused("a fork", _fork)
    refused("a program", os.execv, "/proc/self/exe", ["true"])
    refused("a clone", _clone)
    _demand(0 < resource.getrlimit(resource.RLIMIT_NPROC)[1] <= MOST_TASKS, "threads are not bounded")


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _clone() -> None:
    number = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, 56)
    made = _call(number, signal.SIGCHLD, 0, 0, 0, 0)
    if made == 0:
        os._exit(0)


def try_writes(folder: Path, entry: str) -> None:
    """Nothing written, made, renamed, removed or changed in its rights, in the model's folder and elsewhere."""
    for place in (folder, Path("/tmp"), Path("/dev/shm"), Path("/var/tmp")):  # noqa: S108  # nothing is written there
        name = place / ".modelyard-trial"
        refused(f"writing below {place.name}", os.open, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for attempt in (os.mkdir, os.unlink, os.rmdir):
            refused(f"{attempt.__name__} below {place.name}", attempt, name)
        refused(f"a link below {place.name}", os.symlink, "x", name)
    refused("opening the model for writing", os.open, folder / entry, os.O_RDWR)
    refused("changing the model's rights", os.chmod, folder / entry, 0o400)
    refused("renaming", os.rename, folder / ".modelyard-trial", folder / ".modelyard-trial-2")
    _demand(resource.getrlimit(resource.RLIMIT_FSIZE)[1] == 0, "files may grow")


def try_files(folder: Path) -> None:
    """Nothing outside the model's folder is read: not beside it, no accounts, no other process."""
    refused("a list of the folder above the model's", os.listdir, folder.parent)
    parent = f"/proc/{os.getppid()}"
    for path in ("/etc/passwd", "/proc/1/environ", "/proc/1/cmdline", f"{parent}/environ", f"{parent}/maps"):
        refused(f"reading {path}", os.open, path, os.O_RDONLY)


def try_memory(bound_bytes: int) -> None:
    """No more address space than the bound."""
    with suppress(OSError, MemoryError):
        mmap.mmap(-1, bound_bytes + 1).close()
        raise BrokenError(f"{bound_bytes + 1} bytes could be reserved")
    _demand(resource.getrlimit(resource.RLIMIT_AS) == (bound_bytes, bound_bytes), "the bound could be raised")


def try_cpu() -> None:
    """No priority over others; how much it uses is watched from outside."""
    refused("a higher priority", os.setpriority, os.PRIO_PROCESS, 0, -5)
    refused("another scheduler", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
    refused("other processors", os.sched_setaffinity, 0, {0})


def try_environment(environ: Collection[str]) -> None:
    """Nothing but the names that a jail needs."""
    more = sorted(name for name in environ if name not in ENVIRONMENT)
    _demand(not more, f"the environment holds {', '.join(more)[:200]}")


def try_privileges() -> None:
    """Not root, no capability but reading, none to come."""
    _demand(os.getuid() != 0 and os.geteuid() != 0, "it runs as root")
    refused("becoming root", os.setuid, 0)
    _demand(_asked(GET_NO_NEW_PRIVS) == 1, "a program could have more rights")
    data = ctypes.create_string_buffer(24)
    _demand(ctypes.CDLL(None).capget(struct.pack("=Ii", 0x20080522, 0), data) == 0, "its capabilities are unknown")
    effective, permitted, _, *high = struct.unpack("=6I", data.raw)
    _demand(not (effective | permitted) & ~READ_SEARCH and not any(high), "it has capabilities")


def try_tracing() -> None:
    """The server's memory cannot be read, its own is not offered to others."""
    numbers = {"x86_64": (101, 310), "aarch64": (117, 270)}.get(os.uname().machine, (101, 310))
    refused("tracing the server", _call, numbers[0], PTRACE_ATTACH, os.getppid(), 0, 0)
    refused("reading the server's memory", _call, numbers[1], os.getppid(), 0, 0, 0, 0, 0)
    _demand(_asked(GET_DUMPABLE) == 0, "others may read its memory")


def try_descriptors(expected: Collection[int]) -> None:
    """Nothing else is open: no database, no connection."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(soft):
        if number not in expected:
            with suppress(OSError):
                os.get_inheritable(number)
                raise BrokenError(f"descriptor {number} is open")


def _asked(option: int) -> int:
    """What prctl says; PR_GET_PDEATHSIG answers by an address."""
    libc = ctypes.CDLL(None, use_errno=True)
    if option != GET_PDEATHSIG:
        return int(libc.prctl(option, 0, 0, 0, 0))
    found = ctypes.c_int(0)
    libc.prctl(option, ctypes.byref(found), 0, 0, 0)
    return found.value


def _call(*arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(*(ctypes.c_long(value) for value in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
