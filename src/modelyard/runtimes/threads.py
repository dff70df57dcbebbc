"""How many threads may the numeric libraries use? Sized from the cgroup, before any of them is imported.

A container with a quota of two cores on a host of sixty-four sees sixty-four; a library that believes it starts
sixty-four threads that wait for each other. Sources: Linux kernel documentation, cgroup-v2 `cpu.max` and cgroup-v1
`cpu.cfs_quota_us` / `cpu.cfs_period_us`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.settings import Settings

LIBRARIES: Mapping[str, str] = {
    "OpenMP": "OMP_NUM_THREADS",
    "OpenBLAS": "OPENBLAS_NUM_THREADS",
    "MKL": "MKL_NUM_THREADS",
    "BLIS": "BLIS_NUM_THREADS",
    "NumExpr": "NUMEXPR_NUM_THREADS",
    "Accelerate": "VECLIB_MAXIMUM_THREADS",
}
"""Libraries that take their size from a variable at import."""


TOLD = ("ONNX Runtime", "LightGBM", "XGBoost", "PyTorch", "TensorFlow")
"""Libraries that are told their size when they load a model."""


@dataclass(frozen=True, slots=True)
class Threads:
    """What this process may use: `cores` by affinity, `quota_cores` by cgroup (None: no quota), `threads` for each
    numeric library of each worker, and what each library was given."""

    cores: int
    quota_cores: float | None
    threads: int
    libraries: Mapping[str, int]

    @property
    def usable(self) -> int:
        """Whole cores for a process that shares them with nobody, at least one."""
        return self.cores if self.quota_cores is None else min(self.cores, max(1, math.floor(self.quota_cores)))


def size_threads(
    settings: Settings, environ: MutableMapping[str, str] | None = None, root: Path = Path("/")
) -> Threads:
    """Sets the libraries' variables and says what was set; call before numpy is imported.

    The cores of the quota are shared among the workers, at least one each; `models.max_threads` goes before. A
    variable that the operator set is kept: it is an explicit choice.
    """
    environ = os.environ if environ is None else environ
    cores = len(os.sched_getaffinity(0))
    quota = quota_cores(root)
    usable = Threads(cores, quota, 1, {}).usable
    threads = settings.models.max_threads or max(1, usable // settings.workers)
    given: dict[str, int] = {}
    for library, variable in LIBRARIES.items():
        kept = environ.get(variable, "")
        given[library] = int(kept) if kept.isascii() and kept.isdigit() and int(kept) > 0 else threads
        environ[variable] = str(given[library])
    given |= dict.fromkeys(TOLD, threads)
    return Threads(cores, quota, threads, given)


def quota_cores(root: Path = Path("/")) -> float | None:
    """The least CPU quota on the way from this process's cgroup to the root, in cores; None without one."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            quotas += _along(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                quotas += _along(root / "sys/fs/cgroup" / mount, path, _quota_v1)
    return min(quotas, default=None)


def _along(mount: Path, path: str, quota: Callable[[Path], float | None]) -> list[float]:
    """The quotas of a cgroup and of those above it. Inside a container the path may not exist; the root does."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    folders = [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [found for folder in folders if (found := quota(folder)) is not None]


def _quota_v2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    return _cores(words[0], words[1]) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _cores(quota: str, period: str) -> float | None:
    if not (quota.isdigit() and period.isdigit() and int(period) > 0 and int(quota) > 0):
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
