"""The confinement of the present process, step by step; each is a protection with a name."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.runtimes.jail.inside import landlock, seccomp

NOBODY = 65_534
CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)
READ_SEARCH = 1 << 2
"""CAP_DAC_READ_SEARCH: a model's files belong to the server's user alone. What may be read at all is Landlock's."""
SET_PDEATHSIG, SET_DUMPABLE, SET_KEEPCAPS, SET_NO_NEW_PRIVS = 1, 4, 8, 38
MAX_DESCRIPTORS = 128
TASKS_BESIDE, LEAST_TASKS, MOST_TASKS = 1024, 4096, 32_768
"""Threads that a jail may add to those of its user, and how many that user may have in any case: in other containers
there may be some that cannot be seen from here. The server ends a jail of more than `watch.MAX_THREADS` sooner."""
SYSTEM_FILES = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu",
)  # fmt: skip
"""What numeric libraries read of the system: themselves, and how large the machine is."""


def confine(orders: Mapping[str, Any]) -> dict[str, str]:
    """Applies every protection; what could not be applied, by name, with the reason. `orders`: `folder`,
    `memory_bytes`, `parent`."""
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("threads", _check_alone),
        ("limits", lambda: limit(int(orders["memory_bytes"]))),
        ("privileges", drop_privileges),
        ("tracing", lambda: _prctl(SET_DUMPABLE, 0)),
        ("orphans", lambda: die_with(int(orders["parent"]))),
        ("no_new_privs", lambda: _prctl(SET_NO_NEW_PRIVS, 1)),
        ("files", lambda: landlock.read_only(readable(Path(orders["folder"])))),
        ("system calls", seccomp.apply_filter),
    )
    failed: dict[str, str] = {}
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:
            failed[name] = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return failed


def readable(folder: Path) -> list[Path]:
    """The model's folder, Python with its packages, this package, and SYSTEM_FILES. The rest of `sys.path` is not
    there: it may be a folder in which anything lies."""
    python = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    # A virtual environment's packages, and the interpreter's own library.
    python += [str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix)]
    python += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    import modelyard

    package = Path(str(modelyard.__file__)).parent
    return [folder, package, *map(Path, dict.fromkeys(python)), *map(Path, SYSTEM_FILES)]


def limit(memory_bytes: int) -> None:
    """Address space, no file written, no core dump, few descriptors, and so many threads: their stacks may be small,
    and the kernel's part of each is in no bound of memory."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    bounds = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, min(MOST_TASKS, max(LEAST_TASKS, tasks_of(user) + TASKS_BESIDE))),
    )
    for kind, bound in bounds:
        _, hard = resource.getrlimit(kind)
        most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (most, most))


def tasks_of(user: int) -> int:
    """How many threads the user has on this machine, as far as they can be seen."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        except OSError:  # it ended meanwhile
            continue
        found += int(said["Threads"]) if said["Uid"].split()[0] == str(user) else 0
    return found


def drop_privileges() -> None:
    """From root to nobody, who may read what Landlock lets through; no capability for anybody else."""
    kept = 0
    if os.geteuid() == 0:
        kept = READ_SEARCH
        _prctl(SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    set_capabilities(kept)


def set_capabilities(kept: int) -> None:
    """These in the permitted and effective sets, none to inherit. OSError."""
    data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(CAPABILITY_HEADER, data) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def die_with(parent: int) -> None:
    """SIGKILL when the thread that started this process ends; at once, if that was before."""
    _prctl(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _check_alone() -> None:
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208  # pathlib would be imported for nothing
    if threads != 1:
        raise ValueError(f"{threads} threads run already: some would not be confined")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
