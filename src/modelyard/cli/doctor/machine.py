"""The machine: cores, memory, threads, descriptors, the kernel's features, the versions of what is installed."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from modelyard.cli.doctor.findings import Finding, State, found, judged
from modelyard.core.settings import MIB, Settings
from modelyard.runtimes.threads import size_threads

AREA = "machine"
FEW_MORE_DESCRIPTORS = 256
"""Beside its connections a worker opens models, the database, spool files and pipes."""
EXTRA = re.compile(r"extra\s*==")
NAME = re.compile(r"[A-Za-z0-9._-]+")


def system() -> Iterator[Finding]:
    """The system and its Python."""
    said = f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    linux = platform.system() == "Linux"
    yield judged(AREA, "system", said, linux, "Modelyard runs on Linux.", State.PROBLEM)


def cores(settings: Settings) -> Iterator[Finding]:
    """Cores by affinity and by the cgroup's quota, and what the workers make of them."""
    sized = size_threads(settings, dict(os.environ))
    quota = "no cgroup quota" if sized.quota_cores is None else f"a cgroup quota of {sized.quota_cores:g}"
    usable = min(sized.cores, sized.quota_cores or sized.cores)
    said = f"{sized.cores} cores, {quota}, {settings.workers} worker{'s' if settings.workers > 1 else ''}"
    yield judged(AREA, "cores", said, settings.workers <= max(1, usable), "Fewer workers: --workers, or workers = N.")
    threads = max(sized.libraries.values())
    said = ", ".join(f"{name} {count}" for name, count in sized.libraries.items()) + " threads in each worker"
    good = threads * settings.workers <= max(usable, settings.workers)
    yield judged(AREA, "threads", said, good, "Unset OMP_NUM_THREADS and its like, or lower models.max_threads.")


def memory(settings: Settings) -> Iterator[Finding]:
    """The memory that there is, and what request bodies may take of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bound = min([total, *_cgroup_memory(Path("/sys/fs/cgroup"))])
    bodies = settings.workers * settings.http.max_inflight_bytes
    said = f"{bound // MIB:,} MiB; request bodies may take {bodies // MIB:,} MiB of it"
    yield judged(AREA, "memory", said, bodies * 2 <= bound, "Lower http.max_inflight_bytes or the number of workers.")


def _cgroup_memory(root: Path) -> list[int]:
    texts = [path.read_text().strip() for path in (root / "memory.max", root / "memory/memory.limit_in_bytes")
             if path.is_file()]  # fmt: skip
    return [int(text) for text in texts if text.isdigit()]


def descriptors(settings: Settings) -> Iterator[Finding]:
    """How many files and connections a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.http.max_connections + FEW_MORE_DESCRIPTORS
    said = (
        f"{soft:,} open files a process (at most {hard:,}); http.max_connections is {settings.http.max_connections:,}"
    )
    remedy = f"ulimit -n {wanted} (systemd: LimitNOFILE={wanted}), or a lower http.max_connections."
    yield judged(AREA, "open files", said, soft >= wanted, remedy)


def kernel(folder: Path) -> Iterator[Finding]:
    """What the server asks of the kernel, tried. `folder` is where files for it are made."""
    yield _tried("memfd", "memory for the shared limits", _memfd, State.PROBLEM, "Needs Linux 3.17 or newer.")
    yield _tried("record locks", "exact limits over all workers", _record_lock, State.PROBLEM, "Needs POSIX locks.")
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    yield _tried(
        "fallocate", f"space kept ahead on {place}", lambda: _fallocate(place), State.WARNING,
        "Another file system (ext4, XFS); a full disk is found later on this one.",
    )  # fmt: skip
    yield _tried(
        "SCHED_IDLE", "the drain yields to answers", _sched_idle, State.WARNING,
        "The container's seccomp profile forbids it; the drain then runs at nice 19.",
    )  # fmt: skip


def _tried(name: str, purpose: str, attempt: object, bad: State, remedy: str) -> Finding:
    try:
        attempt()  # type: ignore[operator]
    except (OSError, AttributeError) as error:
        return Finding(AREA, name, bad, f"{purpose}: {error}", remedy)
    return found(AREA, name, purpose)


def _memfd() -> None:
    os.close(os.memfd_create("modelyard-doctor", os.MFD_CLOEXEC))


def _record_lock() -> None:
    with tempfile.TemporaryFile() as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 8)


def _fallocate(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 4096)


def _sched_idle() -> None:
    """In a child: there may be no way back from it."""
    child = os.fork()
    if child == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise PermissionError("not allowed here")


def versions() -> Iterator[Finding]:
    """What Modelyard needs, against what is installed."""
    try:
        required = metadata.requires("modelyard") or []
    except metadata.PackageNotFoundError:
        yield found(AREA, "packages", "Modelyard runs from its source, without its metadata")
        return
    wrong = [text for text in required if not EXTRA.search(text) and not _is_met(text)]
    main = [f"{name} {metadata.version(name)}" for name in ("modelyard", "uvicorn", "numpy", "onnxruntime")]
    said = f"{', '.join(main)}, SQLite {sqlite3.sqlite_version}"
    if wrong:
        said += f"; not met: {', '.join(wrong)}"
    yield judged(AREA, "packages", said, not wrong, "pip install --upgrade modelyard", State.PROBLEM)
    extras = {"scikit-learn": "sklearn", "skops": "sklearn", "pyarrow": "parquet"}
    known = sorted({extra for extra in extras.values() if f"[{extra}]" in str(required) or extra in str(required)})
    missing = sorted({extra for name, extra in extras.items() if extra in known and not _installed(name)})
    yield found(AREA, "extras", f"not installed: {', '.join(missing)}" if missing else "all installed")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_met(text: str) -> bool:
    match = NAME.match(text)
    version = _installed(match[0]) if match else None
    if version is None:
        return False
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return bool(Requirement(text).specifier.contains(version, prereleases=True))
