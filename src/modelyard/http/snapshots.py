"""How a worker learns of changes: it polls the snapshot version and swaps keys and routing table whole (P6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import msgspec
import structlog

from modelyard.auth.ports import KeySnapshot, KeyStore
from modelyard.auth.table import KeyTable
from modelyard.core.events import Event
from modelyard.core.settings import SnapshotSettings
from modelyard.core.types import Servable
from modelyard.models.ports import Key, Loads, Registry, Version
from modelyard.predict import Predictor
from modelyard.routing.ports import Endpoint, EndpointStore, routed
from modelyard.routing.table import RoutingTable

log = structlog.get_logger()

RING_INTERVAL_S = 0.01
"""How often the loop looks whether the board was rung, or a load ended: a read of eight bytes, and of a number."""
RETRY_S = 5.0
"""How long after a load that left out a version with traffic the loader is asked again."""
LOOK_S = 1.0
"""How often the first snapshot looks at its loads, should it have missed the end of one."""
LEAVE_AFTER_S = 1.0
"""A version that no table routes to is freed after this long at the earliest: who was let in before is under way."""
ACCEPT_AFTER_S = 5.0
"""A first worker accepts after this long even if no model is loaded yet: health must be able to say so."""
ACCEPT_SOME_AFTER_S = 2.0
"""And after this long once there is a model that answers: the usual small ones are all there by then."""


class Loader(Protocol):
    """What loads versions; `models.catalog.Catalog`."""

    def begin(self, versions: tuple[Version, ...], routed: frozenset[Key]) -> None:
        """Has what is new loaded, first what is routed, and returns at once; failures are kept, not raised."""

    def state(self) -> Loads:
        """What is loaded, warm and healthy, and what is on its way."""

    def changes(self) -> int:
        """A number that differs after each load that ends."""

    def wait(self, changes: int, timeout_s: float) -> None:
        """Returns when that number is another one, or after the time."""

    def let_go(self, servable: Servable) -> None:
        """Frees one that leaves: nobody can be routed to it, and no request runs on it."""


class Seen(msgspec.Struct, frozen=True):
    """The database at one moment."""

    version: int
    keys: KeySnapshot
    endpoints: tuple[Endpoint, ...]
    versions: tuple[Version, ...]


class Going(msgspec.Struct, frozen=True):
    """One that leaves memory: since when no table routes to it, and who was under way then."""

    servable: Servable
    since_s: float
    under_way: frozenset[Any]


class Snapshots:
    """Keeps one worker's predictor at the newest snapshot.

    Keys follow within a poll, whatever is being loaded. An endpoint follows once every version that it sends traffic
    to is loaded, or failed to load; until then it serves as it did, and the others are not held up. A snapshot is
    applied when nothing of it is being loaded any more.
    """

    def __init__(
        self,
        keys: KeyStore,
        endpoints: EndpointStore,
        registry: Registry,
        loader: Loader,
        settings: SnapshotSettings,
        executor: Executor,
        applied: Callable[[int], None],
        changes: Callable[[], int],
        ready_when_empty: bool = False,
        asked: Callable[[str, str], None] = lambda model, version: None,
        leave_after_s: float = LEAVE_AFTER_S,
    ) -> None:
        self.ready_reason = "the models are being loaded"
        self._keys = keys
        self._endpoints = endpoints
        self._registry = registry
        self._loader = loader
        self._settings = settings
        self._executor = executor
        self._applied = applied
        self._changes = changes
        self._empty_reason = "" if ready_when_empty else "no model is published"
        self._latest: Seen | None = None
        self._begun: Seen | None = None
        self._begun_s = 0.0
        self._settled = -1
        self._asked = asked
        self._leave_after_s = leave_after_s
        self._leaving: tuple[Servable, ...] = ()
        self._going: list[Going] = []
        self._order = threading.Lock()

    def read(self) -> Seen:
        """Everything, at one version: read again if the version moved meanwhile."""
        while True:
            version = self._keys.version()
            seen = Seen(version, self._keys.snapshot(), self._endpoints.endpoints(), self._registry.versions())
            if self._keys.version() == version:
                return seen

    def start(self, predictor: Predictor) -> None:
        """The first snapshot, blocking until everything is loaded or failed; what is ready serves before."""
        self._install_keys(predictor, self.read())
        self._begin(predictor)
        while True:
            changes = self._loader.changes()
            if self._advance(predictor):
                return
            self._loader.wait(changes, LOOK_S)

    async def first(self, predictor: Predictor, successor: bool) -> None:
        """Starts, and returns when the worker should accept. A successor accepts nothing before it can answer
        everything; a first worker waits for no slow model while there is a quick one, and for none for ever."""
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(self._executor, self.start, predictor)
        begun = loop.time()
        while not starting.done():
            waited_s = loop.time() - begun
            enough_s = ACCEPT_SOME_AFTER_S if predictor.table.servables else ACCEPT_AFTER_S
            if not successor and waited_s >= enough_s:
                starting.add_done_callback(_say_if_failed)
                return
            await asyncio.wait((starting,), timeout=0.05)
        starting.result()

    async def follow(self, predictor: Predictor) -> None:
        """Polls for ever; keeps what it has while the database is away."""
        rung, loads = self._changes(), -1
        looked = 0.0
        while True:
            await asyncio.sleep(RING_INTERVAL_S)
            await self._see_off(predictor)
            changes, loaded = self._changes(), self._loader.changes()
            is_time = changes != rung or time.monotonic() - looked >= self._settings.poll_interval_s
            if not is_time and loaded == loads:
                continue
            try:
                if is_time:
                    rung, looked = changes, time.monotonic()
                if (is_time and await self._look(predictor)) or loaded != loads:
                    loads = loaded
                    self._advance(predictor)
            except Exception as error:
                _say_failed(error)

    async def _look(self, predictor: Predictor) -> bool:
        """Keys at once, whatever is being loaded; then the loads of what is new. Whether anything is."""
        loop = asyncio.get_running_loop()
        version = await loop.run_in_executor(self._executor, self._keys.version)
        predictor.fresh_s = time.monotonic()
        if self._latest is None or version != self._latest.version:
            seen = await loop.run_in_executor(self._executor, self.read)
            self._install_keys(predictor, seen)
        if not self._is_due(predictor):
            return False
        await loop.run_in_executor(self._executor, self._begin, predictor)
        return True

    def _is_due(self, predictor: Predictor) -> bool:
        if self._begun is not self._latest or predictor.table.unhealthy != self._loader.state().unhealthy:
            return True
        return bool(_not_loaded(predictor.table)) and time.monotonic() - self._begun_s > RETRY_S

    def _begin(self, predictor: Predictor) -> None:
        """Has the newest snapshot's versions loaded: first those that have traffic, or have it by now."""
        with self._order:
            seen = self._latest
        if seen is not None:
            now = routed(seen.endpoints) | routed(predictor.table.endpoints.values())
            self._loader.begin(seen.versions, now)
            with self._order:
                if self._begun is None or seen.version >= self._begun.version:
                    self._begun, self._begun_s = seen, time.monotonic()

    async def _see_off(self, predictor: Predictor) -> None:
        """Frees what leaves, once no request can run on it: who was under way when the table without it came is
        answered, and who waited for a shared counter with an older table has gone on."""
        leaving, now_s = self._leaving, time.monotonic()
        if not leaving and not self._going:
            return
        known = {id(going.servable) for going in self._going}
        new = [one for one in leaving if id(one) not in known]
        under_way = frozenset(predictor.in_flight) if new else frozenset()
        self._going += [Going(one, now_s, under_way) for one in new]
        for going in self._going:
            if now_s - going.since_s >= self._leave_after_s and going.under_way.isdisjoint(predictor.in_flight):
                self._going = [other for other in self._going if other is not going]
                self._leaving = tuple(one for one in self._leaving if one is not going.servable)
                try:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._executor, self._loader.let_go, going.servable)
                except Exception as error:
                    _say_failed(error)
                return

    def _install_keys(self, predictor: Predictor, seen: Seen) -> None:
        with self._order:
            if self._latest is None or seen.version >= self._latest.version:
                self._latest = seen
                predictor.keys = KeyTable(seen.keys)

    def _advance(self, predictor: Predictor) -> bool:
        """Puts in place what can answer by now; whether nothing is on its way any more."""
        with self._order:
            seen = self._begun
            if seen is None:
                return False
            loads = self._loader.state()
            pending = loads.pending & {(version.model, version.version) for version in seen.versions}
            table = _table(seen, loads, predictor.table, self._asked)
            if not _same(table, predictor.table):
                predictor.table = table
                predictor.fresh_s = time.monotonic()
                _say_applied(table)
            self._leaving = loads.leaving
            # A new model that is being loaded makes no server unready; at the start nothing else can be told.
            unloaded = _not_loaded(table, pending if self._settled >= 0 else frozenset())
            self.ready_reason = unloaded if table.endpoints else self._empty_reason
            if not pending and seen.version > self._settled:
                self._settled = seen.version
                self._applied(seen.version)
            return not pending


def _say_if_failed(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and isinstance(error := done.exception(), Exception):
        _say_failed(error)


def _say_failed(error: Exception) -> None:
    log.warning(Event.SNAPSHOT_FAILED, error=type(error).__name__, reason=str(error)[:300])


def _say_applied(table: RoutingTable) -> None:
    log.info(Event.SNAPSHOT_APPLIED, version=table.version, endpoints=len(table.endpoints), models=len(table.servables))


def _table(seen: Seen, loads: Loads, before: RoutingTable, asked: Callable[[str, str], None]) -> RoutingTable:
    """The table of a snapshot, as far as it can be by now: an endpoint whose new versions are being loaded stays as it
    is, all of it; a new one is there, and says that it is not ready."""
    endpoints = [_endpoint(new, before.endpoints.get(new.name), loads.pending) for new in seen.endpoints]
    known = [(version.model, version.version) for version in seen.versions]
    return RoutingTable(seen.version, endpoints, loads.servables, known, loads.unhealthy, asked)


def _endpoint(new: Endpoint, old: Endpoint | None, pending: frozenset[Key]) -> Endpoint:
    return new if old is None or old.model != new.model or pending.isdisjoint(routed((new,))) else old


def _same(table: RoutingTable, other: RoutingTable) -> bool:
    """Whether the tables route alike; a servable is compared by what it is, not by what it holds."""
    if (table.version, table.endpoints, table.unhealthy) != (other.version, other.endpoints, other.unhealthy):
        return False
    ours, theirs = table.servables, other.servables
    return ours.keys() == theirs.keys() and all(ours[key] is theirs[key] for key in ours)


def _not_loaded(table: RoutingTable, ignored: frozenset[Key] = frozenset()) -> str:
    """Which version with traffic is missing; empty if none is. One that is unhealthy keeps no other from serving."""
    for endpoint in table.endpoints.values():
        for version, share in endpoint.weights:
            key = (endpoint.model, version)
            if share > 0 and key not in table.servables and key not in table.unhealthy and key not in ignored:
                return f"version `{version}` of the model `{endpoint.model}` is not loaded"
    return ""
