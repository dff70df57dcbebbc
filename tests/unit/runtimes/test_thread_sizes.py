"""Threads: sized from the cgroup, shared among workers, set before a library is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.core.settings import load_settings
from modelyard.runtimes.threads import LIBRARIES, TOLD, quota_cores, size_threads


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/cpu.max": "400000 100000",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_is_the_least_on_the_way_to_the_root(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    """cgroup v2 and v1, nested groups, no limit, no cgroup at all."""
    assert quota_cores(_write(tmp_path, files)) == cores


def test_workers_share_the_cores(tmp_path: Path) -> None:
    """Each worker gets its share, at least one thread; models.max_threads goes before."""
    cores = len(os.sched_getaffinity(0))
    for workers, flags, expected in ((1, {}, cores), (cores * 4, {}, 1), (4, {"models.max_threads": 7}, 7)):
        environ: dict[str, str] = {}
        threads = size_threads(load_settings(workers=workers, **flags), environ, tmp_path)
        assert threads.threads == expected
        assert {environ[variable] for variable in LIBRARIES.values()} == {str(expected)}
        assert {threads.libraries[name] for name in TOLD} == {expected}


def test_the_operators_own_choice_is_kept(tmp_path: Path) -> None:
    """A variable that is set stays; one that is no number is replaced."""
    environ = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "many"}
    threads = size_threads(load_settings(**{"models.max_threads": 1}), environ, tmp_path)
    assert (environ["OMP_NUM_THREADS"], environ["MKL_NUM_THREADS"]) == ("3", "1")
    assert threads.libraries["OpenMP"] == 3
