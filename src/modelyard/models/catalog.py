"""What one worker holds in memory: loads new versions side by side, keeps what failed apart from what serves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, NotFoundError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.core.types import Servable
from modelyard.models.load import load_servable, runtime_for
from modelyard.models.loads.timeline import LoadLog, Timeline, Watch
from modelyard.models.ports import ArtifactStore, Health, Key, Loads, Runtime, Version, is_shared
from modelyard.telemetry.logs import emit

RETRY_S = 30.0
"""A version that failed is tried again after this long: its artifact may have come back."""
MAX_PARALLEL_LOADS = 4
"""Unless `models.parallel_loads` says otherwise: more would only wait for the same disk and the same memory."""


SMALL_BYTES = 4 * 1024 * 1024
"""Versions up to this size are loaded with one thread first, to see whether they need more."""


class Catalog:
    """The loaded versions of a process. All methods may be called from any thread."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        runtimes: Mapping[str, Runtime],
        settings: Settings,
        clock: Clock,
        threads: int | None = None,
        health: Health | None = None,
        told: Callable[[tuple[Timeline, ...]], None] = lambda timelines: None,
    ) -> None:
        self._artifacts = artifacts
        self._runtimes = runtimes
        self._settings = settings
        self._clock = clock
        self._threads = threads or settings.models.max_threads or 1
        self._width = settings.models.parallel_loads or min(MAX_PARALLEL_LOADS, len(os.sched_getaffinity(0)))
        self._health = health
        self._servables: dict[Key, Servable] = {}
        self._known: dict[Key, Version] = {}
        self._failures: dict[Key, tuple[str, float]] = {}
        self.log = LoadLog(clock, told)
        """How long each load took; `told` hears of it."""
        self._queue: dict[Key, Version] = {}
        self._watches: dict[Key, Watch] = {}
        self._loading: set[Key] = set()
        self._at_work = 0
        self._changes = 0
        self._changed = threading.Condition()
        self._measuring = threading.Lock()

    def begin(self, versions: Collection[Version], routed: Collection[Key] = ()) -> None:
        """Has what is new loaded, each version in a thread of its own, `models.parallel_loads` at once, and returns.

        What is `routed` comes first, then the smaller ones. Never unloads, never raises for a version: its reason is
        kept in `failures`, the others are not hurt.
        """
        with self._changed:
            self._known.update({(v.model, v.version): v for v in versions})
        unhealthy, now = self.unhealthy(), self._clock.monotonic()
        with self._changed:
            due = [v for v in versions if (key := (v.model, v.version)) not in unhealthy and self._is_due(key, now)]
            self._watches |= {(v.model, v.version): self.log.watch((v.model, v.version)) for v in due}
            waiting = [*self._queue.values(), *due]
            waiting.sort(key=lambda v: ((v.model, v.version) not in routed, size_bytes(v)))
            self._queue = {(v.model, v.version): v for v in waiting}
            while self._at_work < min(self._width, len(self._queue) + len(self._loading)):
                self._at_work += 1
                threading.Thread(target=self._work, name="load", daemon=True).start()

    def refresh(self, versions: Collection[Version], routed: Collection[Key] = ()) -> None:
        """As `begin`, and returns when each of them is loaded or failed."""
        self.begin(versions, routed)
        keys = {(v.model, v.version) for v in versions}
        with self._changed:
            self._changed.wait_for(lambda: keys.isdisjoint(self._queue) and keys.isdisjoint(self._loading))

    def state(self) -> Loads:
        """What is loaded, warm and healthy, and what is on its way, as a copy."""
        unhealthy = self.unhealthy()
        with self._changed:
            servables = {key: servable for key, servable in self._servables.items() if key not in unhealthy}
            return Loads(servables, frozenset(self._queue) | frozenset(self._loading), unhealthy)

    def servables(self) -> Mapping[Key, Servable]:
        """What is loaded, warm and healthy, as a copy."""
        return self.state().servables

    def changes(self) -> int:
        """A number that grows with every load that ends."""
        return self._changes

    def wait(self, changes: int, timeout_s: float) -> None:
        """Returns when `changes()` is another number than this, or after the time."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != changes, timeout_s)

    def unhealthy(self) -> frozenset[Key]:
        """The known versions in whose run too many workers died: neither loaded nor given out."""
        if self._health is None:
            return frozenset()
        with self._changed:
            known = tuple(self._known)
        return frozenset(key for key in known if self._health.is_unhealthy(*key))

    def failures(self) -> dict[Key, str]:
        """Why a version is not served, by version."""
        with self._changed:
            return {key: reason for key, (reason, _) in self._failures.items()}

    def get(self, model: str, version: str) -> Servable:
        """One loaded version; NotFoundError("version_not_found"), UnavailableError("model_not_ready")."""
        key = (model, version)
        with self._changed:
            servable, failed, known = self._servables.get(key), self._failures.get(key), key in self._known
        if servable is not None:
            return servable
        if not known:
            raise NotFoundError(
                "version_not_found", f"The model `{model}` has no version `{version}`.", field="version", got=version
            )
        why = failed[0] if failed else "it is still being loaded."
        raise UnavailableError(
            "model_not_ready", f"{model} version {version} is not ready: {why}", retry_after_s=RETRY_S if failed else 1
        )

    def unload(self, model: str, version: str) -> None:
        """Frees a version. The caller has made sure that no routing table sends anything to it."""
        with self._changed:
            servable = self._servables.pop((model, version), None)
            self._failures.pop((model, version), None)
            self._known.pop((model, version), None)
        if servable is not None:
            servable.loaded.close()
            self._artifacts.release(servable.digest)
            emit(Event.MODEL_UNLOADED, model=model, version=version)

    def close(self) -> None:
        """Frees everything."""
        with self._changed:
            keys = tuple(self._servables)
        for model, version in keys:
            self.unload(model, version)

    def _is_due(self, key: Key, now: float) -> bool:
        if key in self._servables or key in self._loading or key in self._queue:
            return False
        failed = self._failures.get(key)
        return failed is None or now - failed[1] >= RETRY_S

    def _work(self) -> None:
        """One thread: loads what waits, one after the other, until nothing does."""
        while True:
            with self._changed:
                if not self._queue:
                    self._at_work -= 1
                    return
                key = next(iter(self._queue))
                version, watch = self._queue.pop(key), self._watches.pop(key)
                self._loading.add(key)
            try:
                self._load(version, watch)
            finally:
                with self._changed:
                    self._loading.discard(key)
                    self._changes += 1
                    self._changed.notify_all()

    def _load_files(self, version: Version, watch: Watch) -> Servable:
        """The files stay where they are until the version is unloaded: a library may read on in them."""
        folder = self._artifacts.open(version.digest, watch)
        try:
            noted = nullcontext() if self._health is None else self._health.loading(version.model, version.version)
            with noted:  # not while the files are fetched: who dies of that does not die of the model
                return self._load_sized(version, folder, watch)
        except BaseException:
            self._artifacts.release(version.digest)
            raise

    def _load_sized(self, version: Version, folder: Path, watch: Watch) -> Servable:
        """With one thread if the model is small and quick, else with all that it may have: handing a part of a short
        run to another thread costs more than the part."""
        if is_shared(version.manifest, self._settings):
            return self._load_with(version, folder, self._threads, watch)
        small = size_bytes(version) <= SMALL_BYTES
        servable = self._load_with(version, folder, 1 if small else self._threads, watch)
        if not small or servable.profile.in_loop or self._threads == 1:
            return servable
        servable.loaded.close()
        return self._load_with(version, folder, self._threads, watch)

    def _load_with(self, version: Version, folder: Path, threads: int, watch: Watch) -> Servable:
        return load_servable(
            version,
            folder,
            runtime_for(version.manifest, self._runtimes),
            self._settings,
            self._clock,
            threads,
            self._measuring,
            watch,
        )

    def _load(self, version: Version, watch: Watch) -> None:
        key = (version.model, version.version)
        begun = self._clock.monotonic()
        watch.started()
        try:
            servable = self._load_files(version, watch)
        except BaseException as error:  # a library that wants to end the process ends its load
            watch.ended(*self._fail(key, error))
            return
        if self._health is not None:
            servable = msgspec.structs.replace(servable, loaded=self._health.watched(*key, servable.loaded))
        with self._changed:
            self._servables[key] = servable
            self._failures.pop(key, None)
        watch.ended()
        profile = servable.profile
        emit(
            Event.MODEL_LOADED,
            model=version.model,
            version=version.version,
            load_s=round(self._clock.monotonic() - begun, 3),
            batched=profile.batched,
            in_loop=profile.in_loop,
            run_us_1=round(profile.run_us_1, 1),
            run_us_32=round(profile.run_us_32, 1),
        )

    def _fail(self, key: Key, error: BaseException) -> tuple[str, str]:
        reason = error.message if isinstance(error, ModelyardError) else f"it broke with {type(error).__name__}."
        with self._changed:
            self._failures[key] = (reason, self._clock.monotonic())
        code = error.code if isinstance(error, ModelyardError) else "internal"
        emit(Event.MODEL_LOAD_FAILED, "error", model=key[0], version=key[1], code=code, reason=reason)
        return code, reason


def size_bytes(version: Version) -> int:
    """The bytes of all files of a version."""
    return sum(entry.size_bytes for entry in version.manifest.files)
