"""Which versions are held once for all workers, and the port `models.ports.Runtime` for those."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.settings import Settings
from modelyard.core.types import LoadedModel
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection, Runtime, is_shared
from modelyard.runtimes.remote.process import Bounds
from modelyard.runtimes.shared.model import SharedModel
from modelyard.runtimes.shared.place import Place
from modelyard.runtimes.shared.words import Hosted

LINGER_S = 10.0
"""A process that no worker has stays this long: one that is replaced, or loads again, finds it warm."""

SLOW_DISK_BYTES_S = 20 * 1024**2
"""What a network disk that has used up its burst still gives."""


class Meeting(msgspec.Struct, frozen=True):
    """Where the workers of one server meet (`folder`), what a process may use (`threads`), the process that none
    outlives (`server`), and what was installed when this worker started (`release`)."""

    folder: Path
    threads: int
    server: int
    linger_s: float = LINGER_S
    release: tuple[str, ...] = ()


class SharedRuntimes(Mapping[str, Runtime]):
    """A worker's runtimes: as they are, but large versions live in a process that all workers share
    (`models.ports.is_shared`)."""

    def __init__(self, runtimes: Mapping[str, Runtime], settings: Settings, meeting: Meeting) -> None:
        self._runtimes = runtimes
        self._settings = settings
        self._meeting = meeting

    def __getitem__(self, name: str) -> Runtime:
        return SharedRuntime(self._runtimes[name], self._settings, self._meeting)

    def __iter__(self) -> Iterator[str]:
        return iter(self._runtimes)

    def __len__(self) -> int:
        return len(self._runtimes)


class SharedRuntime:
    """A runtime whose large versions are loaded in one process of this host."""

    def __init__(self, inner: Runtime, settings: Settings, meeting: Meeting) -> None:
        self.format = inner.format
        self._inner = inner
        self._settings = settings
        self._meeting = meeting

    def detect(self, folder: Path) -> str | None:
        """As the runtime does."""
        return self._inner.detect(folder)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """As the runtime does."""
        return self._inner.inspect(folder, entry, options)

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> LoadedModel:
        """The model, here or in its process; PublishError, ModelError."""
        if not is_shared(manifest, self._settings):
            return self._inner.load(folder, manifest, options)
        meeting = self._meeting
        given = {**options, "threads": meeting.threads}
        bounds = patient(Bounds.of(given), manifest)
        path = str(folder.resolve())
        hosted = Hosted(path, manifest, given, -1, meeting.server, meeting.linger_s, bounds.memory_bytes)
        return SharedModel(Place(meeting.folder, process_name(hosted, meeting.release)), hosted, bounds)


def patient(bounds: Bounds, manifest: Manifest) -> Bounds:
    """With as much time to load as a slow disk takes to give the files: a publish found them in memory."""
    read_s = sum(entry.size_bytes for entry in manifest.files) / SLOW_DISK_BYTES_S
    return msgspec.structs.replace(bounds, load_s=bounds.load_s + read_s)


def installed() -> tuple[str, ...]:
    """What is installed, as the folders of packages tell: names and versions. Another release is another answer."""
    folders = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], str(Path(__file__).parents[3])}
    return tuple(sorted(path.name for folder in folders for path in Path(folder).glob("*.dist-info")))


def process_name(hosted: Hosted, release: tuple[str, ...]) -> str:
    """The same for all workers of one server that would load the same files in the same way; a worker of another
    release, which a reload starts, gets a process of its own."""
    said = [hosted.manifest.digest(), hosted.options, hosted.server, release]
    return blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=12).hexdigest()
