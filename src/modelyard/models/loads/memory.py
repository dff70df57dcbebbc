"""What a version takes of a host's memory, and what there is: estimates, for admission and for what may stay.

An estimate is the artifact's size by a factor of its format. It is no measurement: a publish check's process has the
library itself in its memory, and a worker's grows with the largest batch. No factor is less than what models of a
working size took (`python -m bench.memory_factors`); what it leaves out, the reserve is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import sysconf
from pathlib import Path

from modelyard.core.settings import Settings
from modelyard.models.manifest import Manifest
from modelyard.models.ports import JAILED_FORMATS, Key, Version, is_shared

MIB = 1024 * 1024
FACTORS: Mapping[str, float] = {
    "onnx": 1.5,
    "torchscript": 1.5,
    "torch_export": 2.0,
    "tensorflow": 3.0,
    "sklearn": 3.0,
    "lightgbm": 2.0,
    "xgboost": 3.0,
    "pickle": 3.0,
    "python": 2.0,
}
"""Bytes in memory for each byte of the artifact, once it is loaded: weights as they are, prepacked ones beside them;
text and compressed files grow."""
OTHER_FACTOR = 2.0
GRAPH_BYTES = 24 * MIB
"""Of a TensorFlow version beside: its function, traced and optimized, and the pools that its first run makes."""
FOREST_FACTOR, FOREST_BYTES = 4.5, 64 * MIB
"""ONNX Runtime keeps the nodes of trees as objects, which take four times the bytes of the file. What an ONNX file has
in it the manifest does not say; what is larger than this has seldom trees in it."""
BASE_BYTES = 2 * MIB
"""Of every version: its graph, its check, its lane."""
JAIL_BYTES = 96 * MIB
"""Of a jailed version: an interpreter of its own, with its libraries."""
SHARE = 0.75
"""Of the memory that there is may be models, unless `models.memory_bytes` says otherwise: the rest is for the processes
themselves, for requests and for batches."""


def estimate_bytes(manifest: Manifest) -> int:
    """What one copy of the version takes."""
    size = sum(entry.size_bytes for entry in manifest.files)
    base = BASE_BYTES + (JAIL_BYTES if manifest.format in JAILED_FORMATS else 0)
    base += GRAPH_BYTES if manifest.format == "tensorflow" else 0
    factor = FACTORS.get(manifest.format, OTHER_FACTOR)
    first = min(size, FOREST_BYTES) if manifest.format == "onnx" else 0
    return base + int((size - first) * factor + first * FOREST_FACTOR)


def copies(version: Version, settings: Settings) -> int:
    """How many processes of a host hold the version: each worker, or one for all. The one place that knows."""
    return 1 if is_shared(version.manifest, settings) else settings.workers


def need_bytes(version: Version, settings: Settings) -> int:
    """What all copies of the version take of the host."""
    return estimate_bytes(version.manifest) * copies(version, settings)


def model_memory_bytes(settings: Settings, root: Path = Path("/")) -> int | None:
    """What all models of this host may take together; None if nobody asks (`models.admission`)."""
    if not settings.models.admission:
        return None
    return settings.models.memory_bytes or int(memory_bytes(root) * SHARE)


def memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or the least that a cgroup of this process leaves of it. Sources: Linux kernel
    documentation, cgroup-v2 `memory.max`, cgroup-v1 `memory.limit_in_bytes`."""
    machine = sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _along(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _along(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _along(mount: Path, path: str, name: str) -> Iterator[int]:
    """The limits of a cgroup and of those above it. Inside a container the path may not exist; the root does."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts) + 1):
        text = _read(mount.joinpath(*parts[:depth]) / name).strip()
        if text.isdigit():
            yield int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def is_pinned(key: Key, settings: Settings) -> bool:
    """Whether `models.pinned` names the version, or its whole model."""
    return key[0] in settings.models.pinned or "/".join(key) in settings.models.pinned
