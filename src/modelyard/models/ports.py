"""What the models station needs from the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from modelyard.core.settings import Settings
from modelyard.core.types import LoadedModel, Servable, Signature
from modelyard.models.manifest import Manifest

UNSAFE_FORMATS = frozenset({"python", "pickle"})
"""Formats whose files are programs in Python: only where models.unsafe_formats allows them, of a trusted signer, in a
jail."""
JAILED_FORMATS = UNSAFE_FORMATS | {"torchscript"}
"""All that run in a jail. TorchScript is a language that cannot reach beyond itself, so it needs nobody's leave; its
operators believe what they are told, so it has a process of its own."""

Key = tuple[str, str]
"""Model and version."""


class Version(msgspec.Struct, frozen=True):
    """One published version, immutable. `created_at` is UNIX seconds."""

    model: str
    version: str
    digest: str
    manifest: Manifest
    created_at: float


def is_shared(manifest: Manifest, settings: Settings) -> bool:
    """Whether a version is held once for all workers of a host, in a process that they share; else each worker holds
    it, or has a jail that does."""
    least = settings.models.shared_from_bytes
    large = 0 < least <= sum(entry.size_bytes for entry in manifest.files)
    return large and settings.workers > 1 and manifest.format not in JAILED_FORMATS


def holder(manifest: Manifest, settings: Settings) -> str:
    """Whose memory a version is in when it is loaded: `worker` (each worker's), `shared_process` (one for all) or
    `jail` (one for each worker)."""
    if manifest.format in JAILED_FORMATS:
        return "jail"
    return "shared_process" if is_shared(manifest, settings) else "worker"


class Registry(Protocol):
    """Where versions are known (DATA-1). A change bumps the snapshot version in the same transaction."""

    def add_version(self, version: Version) -> bool:
        """Adds it and, for a model's first version, an endpoint of the model's name with all traffic on it. False
        if the same content is there already; ConflictError("version_exists") if other content is."""

    def versions(self, model: str | None = None) -> tuple[Version, ...]:
        """Versions of one model, oldest first, or of all; NotFoundError("model_not_found") for an unknown one."""

    def version(self, model: str, version: str) -> Version:
        """One version; NotFoundError("model_not_found" | "version_not_found")."""

    def manifest(self, digest: str) -> Manifest | None:
        """A manifest by digest, also of versions that are gone (manifests outlive their records)."""


class Steps(Protocol):
    """Where a load says what it does (models.loads.timeline.Watch)."""

    def step(self, name: str, size_bytes: int | None = None) -> AbstractContextManager[None]:
        """What is done inside is a step of this name, which reads or fetches so many bytes."""


class _Untold:
    def step(self, name: str, size_bytes: int | None = None) -> AbstractContextManager[None]:
        return nullcontext()


UNTOLD: Steps = _Untold()
"""For loads that nobody watches."""


class ArtifactStore(Protocol):
    """Where the files of versions live (STORE-1, STORE-2), under the manifest's digest."""

    def put(self, digest: str, folder: Path) -> None:
        """Copies a folder in, atomically and durably: at any kill point the digest is absent or complete."""

    def open(self, digest: str, steps: Steps = UNTOLD) -> Path:
        """A read-only local folder with the files of the version, there until `release` was called as often as this or
        the process ends; NotFoundError("version_not_found")."""

    def release(self, digest: str) -> None:
        """The folder is no longer used: a store that keeps copies may remove it. Never raises."""

    def has(self, digest: str) -> bool:
        """Whether the version is there, complete."""


class Loads(msgspec.Struct, frozen=True):
    """What a worker holds at one moment. `pending` waits for its load, or is in it; `leaving` is given out no more, and
    waits to be let go."""

    servables: Mapping[Key, Servable]
    pending: frozenset[Key] = frozenset()
    unhealthy: frozenset[Key] = frozenset()
    leaving: tuple[Servable, ...] = ()


class Inspection(msgspec.Struct, frozen=True):
    """What a runtime read from the files without running them. `suffix` is what files of this content are usually
    called by; "" where the format has one for all."""

    format: str
    entry: str
    signature: Signature
    provenance: Mapping[str, str] = {}
    suffix: str = ""


class Health(Protocol):
    """Whose run kills workers: versions are noted while they load and run, so that the parent knows who did it."""

    def watched(self, model: str, version: str, loaded: LoadedModel) -> LoadedModel:
        """The same model, noted while it runs."""

    def loading(self, model: str, version: str) -> AbstractContextManager[None]:
        """Notes a version while it is loaded."""

    def is_unhealthy(self, model: str, version: str) -> bool:
        """Whether too many workers died in its run."""


@runtime_checkable
class ReportsDeaths(Protocol):
    """A loaded model whose process serves other workers too: each death is counted once, by whoever saw it first."""

    def report_deaths(self, report: Callable[[str, bool], None]) -> None:
        """From now on `report` is called with the code of each death that this worker saw first, and whether it was
        one too many; in any thread."""


class Runtime(Protocol):
    """One model format."""

    format: str
    """Its name in the manifest; those of JAILED_FORMATS are programs, and run in a jail."""

    def detect(self, folder: Path) -> str | None:
        """The entry file if the folder's content is of this format, else None. By content, not by name."""

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Reads and checks the files; PublishError."""

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> LoadedModel:
        """The model, ready to run with `options["threads"]` threads; PublishError, ModelError."""
