"""What the management routes and the command line work with: one set of services over one set of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import KeyStore
from modelyard.core.clock import Clock
from modelyard.core.settings import Settings
from modelyard.journal.ports import RecordLog
from modelyard.models.ports import ArtifactStore, Registry, Runtime, Version
from modelyard.routing.ports import EndpointStore


class Published(Protocol):
    """What a publish did: the version, and whether it is new (False: the same content was there)."""

    @property
    def version(self) -> Version:
        """The version that exists now."""

    @property
    def created(self) -> bool:
        """Whether this call made it."""


class Publishes(Protocol):
    """Publishing, as `models.publish.Publisher` does it."""

    def publish(
        self,
        model: str,
        source: Path,
        version: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        example: Mapping[str, Any] | None = None,
    ) -> Published:
        """Checks and publishes a file or folder; PublishError, ConflictError, InvalidRequestError. A refusal leaves
        nothing behind."""


@dataclass(frozen=True)
class Services:
    """One set of data, opened. Built by `modelyard.app.services.open_services`; `close` gives everything back.

    `drain` moves what waits in the spool to the database, once, and returns how many records went; it refuses
    where another process does so already (ConflictError). `ping` returns if the database answers, else
    UnavailableError.
    """

    settings: Settings
    clock: Clock
    keys: KeyIssuer
    key_store: KeyStore
    endpoints: EndpointStore
    registry: Registry
    artifacts: ArtifactStore
    runtimes: Mapping[str, Runtime]
    publisher: Publishes
    log: RecordLog
    drain: Callable[[], int]
    ping: Callable[[], None]
    close: Callable[[], None]
