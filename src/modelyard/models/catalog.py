"""What one worker holds in memory: loads new versions side by side, keeps what failed apart from what serves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError, ModelyardError, NotFoundError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.core.types import Servable
from modelyard.models.load import load_servable, runtime_for
from modelyard.models.loads.admission import shortage
from modelyard.models.loads.memory import is_pinned, model_memory_bytes, need_bytes
from modelyard.models.loads.plan import Candidate, plan
from modelyard.models.loads.timeline import LoadLog, Timeline, Watch
from modelyard.models.ports import ArtifactStore, Health, Key, Loads, Runtime, Version, is_shared
from modelyard.telemetry.logs import emit

RETRY_S = 30.0
"""A version that failed is tried again after this long: its artifact may have come back."""
LEAVE_WITHIN_S = 10.0
"""How long a load waits for versions that leave: a run on one of them may last for longer."""
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
        last_used: Callable[[Key], float] = lambda key: 0.0,
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
        self._leaving: list[Servable] = []
        self._routed: frozenset[Key] = frozenset()
        self._listed: frozenset[Key] = frozenset()
        self._asked: set[Key] = set()
        self._asked_at: dict[Key, float] = {}
        self._last_used = last_used
        self._has_bytes = model_memory_bytes(settings)
        self._at_work = 0
        self._changes = 0
        self._changed = threading.Condition()
        self._measuring = threading.Lock()

    def begin(self, versions: Collection[Version], routed: Collection[Key] = ()) -> None:
        """Has what is new loaded, each version in a thread of its own, `models.parallel_loads` at once, and returns.

        What is `routed` or pinned comes first, then the smaller ones. What is neither is held as far as there is room
        (loads/plan.py), and leaves when there is none. Never raises for a version: its reason is kept in `failures`,
        the others are not hurt.
        """
        with self._changed:
            self._known.update({(v.model, v.version): v for v in versions})
            self._listed = frozenset((v.model, v.version) for v in versions)
            self._routed = frozenset(routed)
        self._follow_plan()

    def ask(self, model: str, version: str) -> None:
        """A prediction names a version that is not in memory: it is loaded if it fits beside what stays, and what was
        used longest ago leaves for it. Returns at once."""
        key = (model, version)
        with self._changed:
            now = self._clock.monotonic()
            if key in self._asked or key not in self._listed or not self._is_due(key, now):
                return
            self._asked.add(key)
            self._asked_at[key] = self._clock.now()
        threading.Thread(target=self._follow_plan, name="load-plan", daemon=True).start()

    def let_go(self, servable: Servable) -> None:
        """Frees one that leaves (`Loads.leaving`): no table routes to it any more, and no request runs on it."""
        if not any(one is servable for one in self._leaving):
            return
        self._free(servable)
        with self._changed:
            self._leaving = [one for one in self._leaving if one is not servable]
            self._changed.notify_all()

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
            pending = frozenset(self._queue) | frozenset(self._loading)
            return Loads(servables, pending, unhealthy, tuple(self._leaving))

    def servables(self) -> Mapping[Key, Servable]:
        """What is loaded, warm and healthy, as a copy."""
        return self.state().servables

    def changes(self) -> int:
        """A number that grows with every load that ends, and every version that leaves."""
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
            self._free(servable)

    def close(self) -> None:
        """Frees everything."""
        with self._changed:
            keys = tuple(self._servables)
        for model, version in keys:
            self.unload(model, version)
        for servable in tuple(self._leaving):
            self.let_go(servable)

    def _free(self, servable: Servable) -> None:
        servable.loaded.close()
        self._artifacts.release(servable.digest)
        emit(Event.MODEL_UNLOADED, model=servable.model, version=servable.version)

    def _follow_plan(self) -> None:
        """Queues what should be here and is not, dismisses what should not."""
        unhealthy, now = self.unhealthy(), self._clock.monotonic()
        with self._changed:
            asked, self._asked = self._asked, set()
            chosen = plan(self._candidates(unhealthy, now), self._has_bytes, self._settings.models.max_idle_versions)
            for key in chosen.leave:
                self._dismiss(key)
            self._enqueue([self._known[key] for key in chosen.load])
            short = [key for key in chosen.short if key in asked or self._stays(key)]
        for key in short:
            self.log.watch(key).ended(*self._fail(key, self._shortage(key)))

    def _candidates(self, unhealthy: frozenset[Key], now: float) -> list[Candidate]:
        held = self._servables.keys() | self._queue.keys() | self._loading
        return [
            Candidate(key, need_bytes(version, self._settings), self._stays(key), key in held, self._used_at(version))
            for key, version in self._known.items()
            if key in held or (key in self._listed and key not in unhealthy and self._is_due(key, now))
        ]

    def _stays(self, key: Key) -> bool:
        return key in self._routed or is_pinned(key, self._settings)

    def _used_at(self, version: Version) -> float:
        key = (version.model, version.version)
        return max(version.created_at, self._asked_at.get(key, 0.0), self._last_used(key))

    def _dismiss(self, key: Key) -> None:
        """What waits is not loaded; what is loaded leaves; what is being loaded does so by a later plan."""
        if self._queue.pop(key, None) is not None:
            del self._watches[key]
        elif (servable := self._servables.pop(key, None)) is not None:
            self._leaving.append(servable)
        self._changes += 1

    def _enqueue(self, due: Collection[Version]) -> None:
        self._watches |= {(v.model, v.version): self.log.watch((v.model, v.version)) for v in due}
        waiting = [*self._queue.values(), *due]
        waiting.sort(key=lambda v: (not self._stays((v.model, v.version)), size_bytes(v)))
        self._queue = {(v.model, v.version): v for v in waiting}
        while self._at_work < min(self._width, len(self._queue) + len(self._loading)):
            self._at_work += 1
            threading.Thread(target=self._work, name="load", daemon=True).start()

    def _shortage(self, key: Key) -> ConflictError:
        """Why a version is not held: what stays leaves too little."""
        with self._changed:
            staying = [self._known[one] for one in self._servables if one != key and self._stays(one)]
        held = {f"{one.model}/{one.version}": need_bytes(one, self._settings) for one in staying}
        return shortage(["/".join(key)], need_bytes(self._known[key], self._settings), self._has_bytes or 0, held)

    def _is_due(self, key: Key, now: float) -> bool:
        if key in self._servables or key in self._loading or key in self._queue:
            return False
        failed = self._failures.get(key)
        return failed is None or now - failed[1] >= RETRY_S

    def _work(self) -> None:
        """One thread: loads what waits, one after the other, until nothing does."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._leaving, LEAVE_WITHIN_S)  # for its memory
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
