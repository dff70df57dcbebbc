"""How a worker learns of changes: it polls the snapshot version and swaps keys and routing table whole (P6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import msgspec
import structlog

from modelyard.auth.ports import KeySnapshot, KeyStore
from modelyard.auth.table import KeyTable
from modelyard.core.events import Event
from modelyard.core.settings import SnapshotSettings
from modelyard.core.types import Servable
from modelyard.models.ports import Registry, Version
from modelyard.predict import Predictor
from modelyard.routing.ports import Endpoint, EndpointStore
from modelyard.routing.table import RoutingTable

log = structlog.get_logger()

RING_INTERVAL_S = 0.01
"""How often the loop looks whether the board was rung: a read of eight bytes."""
RETRY_S = 5.0
"""How long after a load that left out a version with traffic the loader is asked again."""


class Loader(Protocol):
    """What loads versions; `models.catalog.Catalog`."""

    def refresh(self, versions: tuple[Version, ...]) -> None:
        """Loads what is new, blocking; failures are kept, not raised."""

    def servables(self) -> dict[tuple[str, str], Servable]:
        """What is loaded, warm and healthy."""

    def unhealthy(self) -> frozenset[tuple[str, str]]:
        """What must not be loaded."""


class Seen(msgspec.Struct, frozen=True):
    """The database at one moment."""

    version: int
    keys: KeySnapshot
    endpoints: tuple[Endpoint, ...]
    versions: tuple[Version, ...]


class Snapshots:
    """Keeps one worker's predictor at the newest snapshot.

    Keys follow within a poll, whatever is being loaded. A new routing table is put in place only when every version
    it sends traffic to is loaded, or failed to load; until then the old one serves.
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
        self._loading: asyncio.Task[None] | None = None
        self._loaded_s = 0.0
        self._order = threading.Lock()

    def read(self) -> Seen:
        """Everything, at one version: read again if the version moved meanwhile."""
        while True:
            version = self._keys.version()
            seen = Seen(version, self._keys.snapshot(), self._endpoints.endpoints(), self._registry.versions())
            if self._keys.version() == version:
                return seen

    def table(self, seen: Seen) -> RoutingTable:
        """Loads what is new and gives the routing table of a snapshot; blocking, for a thread."""
        self._loader.refresh(seen.versions)
        known = [(version.model, version.version) for version in seen.versions]
        unhealthy = self._loader.unhealthy()
        return RoutingTable(seen.version, seen.endpoints, self._loader.servables(), known, unhealthy)

    def start(self, predictor: Predictor) -> None:
        """The first snapshot, blocking."""
        seen = self.read()
        self._install_keys(predictor, seen)
        self._install_table(predictor, self.table(seen))

    async def follow(self, predictor: Predictor) -> None:
        """Polls for ever; keeps what it has while the database is away."""
        rung = self._changes()
        looked = 0.0
        while True:
            await asyncio.sleep(RING_INTERVAL_S)
            changes = self._changes()
            if changes == rung and time.monotonic() - looked < self._settings.poll_interval_s:
                continue
            rung, looked = changes, time.monotonic()
            try:
                await self._look(predictor)
            except Exception as error:
                _say_failed(error)

    async def _look(self, predictor: Predictor) -> None:
        """Keys at once, whatever is being loaded; models behind it, one load at a time."""
        loop = asyncio.get_running_loop()
        version = await loop.run_in_executor(self._executor, self._keys.version)
        predictor.fresh_s = time.monotonic()
        if self._latest is None or version != self._latest.version:
            seen = await loop.run_in_executor(self._executor, self.read)
            self._install_keys(predictor, seen)
        if self._loading is None and self._latest is not None and self._is_due(predictor, self._latest):
            self._loading = loop.create_task(self._load(predictor, self._latest))

    def _is_due(self, predictor: Predictor, seen: Seen) -> bool:
        if predictor.table.version != seen.version or predictor.table.unhealthy != self._loader.unhealthy():
            return True
        return bool(_not_loaded(predictor.table)) and time.monotonic() - self._loaded_s > RETRY_S

    async def _load(self, predictor: Predictor, seen: Seen) -> None:
        try:
            table = await asyncio.get_running_loop().run_in_executor(self._executor, self.table, seen)
            self._install_table(predictor, table)
        except Exception as error:
            _say_failed(error)
        finally:
            self._loading = None

    def _install_keys(self, predictor: Predictor, seen: Seen) -> None:
        with self._order:
            if self._latest is None or seen.version >= self._latest.version:
                self._latest = seen
                predictor.keys = KeyTable(seen.keys)

    def _install_table(self, predictor: Predictor, table: RoutingTable) -> None:
        """Puts the table in place, unless a newer one is; from then on this worker answers by its version."""
        with self._order:
            if table.version < predictor.table.version:
                return
            predictor.table = table
        self._loaded_s = predictor.fresh_s = time.monotonic()
        self.ready_reason = _not_loaded(table) if table.endpoints else self._empty_reason
        self._applied(table.version)
        log.info(
            Event.SNAPSHOT_APPLIED,
            version=table.version,
            endpoints=len(table.endpoints),
            models=len(table.servables),
        )


def _say_failed(error: Exception) -> None:
    log.warning(Event.SNAPSHOT_FAILED, error=type(error).__name__, reason=str(error)[:300])


def _not_loaded(table: RoutingTable) -> str:
    """Which version with traffic is missing; empty if none is. One that is unhealthy keeps no other from serving."""
    for endpoint in table.endpoints.values():
        for version, share in endpoint.weights:
            key = (endpoint.model, version)
            if share > 0 and key not in table.servables and key not in table.unhealthy:
                return f"version `{version}` of the model `{endpoint.model}` is not loaded"
    return ""
