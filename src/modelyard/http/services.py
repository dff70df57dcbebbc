"""What the management routes and the command line work with: one set of services over one set of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from modelyard.analytics.desk import AnalyticsDesk
from modelyard.audit.event import Change
from modelyard.audit.ports import AuditLog
from modelyard.audit.refused import RefusalCounts
from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import KeyStore, UsageStore
from modelyard.core.clock import Clock
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.processes.health import UnhealthyVersions
from modelyard.http.processes.loads import LoadFiles
from modelyard.journal.outcomes import OutcomeDesk
from modelyard.journal.ports import QuarantineLog, RecordLog, RecordSink
from modelyard.models.loads.admission import Admission
from modelyard.models.ports import ArtifactStore, Registry, Runtime, Version
from modelyard.retention.desk import RetentionDesk
from modelyard.routing.ports import EndpointStore
from modelyard.telemetry.logs import emit


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

    `drain` moves what waits in the spool to the database, for a bounded time, and returns how many records went; what
    it is given is called after each batch. It refuses where another process does so already (ConflictError). `ping`
    returns if the database answers, else UnavailableError. `unhealthy` are the marks of versions that are not loaded;
    `loads` is what each worker of this host loaded; without a data folder there are none of either.
    `admission` refuses what would not fit into memory; None: nobody does.
    `analytics` is None where the database keeps no figures.
    `refused` counts refused requests until somebody flushes them into the audit log.
    """

    settings: Settings
    clock: Clock
    keys: KeyIssuer
    key_store: KeyStore
    usage: UsageStore
    endpoints: EndpointStore
    registry: Registry
    artifacts: ArtifactStore
    runtimes: Mapping[str, Runtime]
    publisher: Publishes
    log: RecordLog
    sink: RecordSink
    audit: AuditLog
    outcomes: OutcomeDesk
    quarantine: QuarantineLog
    retention: RetentionDesk
    drain: Callable[[Callable[[], object] | None], int]
    ping: Callable[[], None]
    close: Callable[[], None]
    analytics: AnalyticsDesk | None = None
    unhealthy: UnhealthyVersions | None = None
    loads: LoadFiles | None = None
    admission: Admission | None = None
    refused: RefusalCounts = field(default_factory=RefusalCounts)


def unhealthy_among(services: Services, versions: Iterable[Version]) -> frozenset[tuple[str, str]]:
    """Which of these are not loaded because workers died in their runs."""
    marks = services.unhealthy
    return frozenset() if marks is None else marks.among([(known.model, known.version) for known in versions])


def admit_traffic(services: Services, name: str, weights: Iterable[tuple[str, int]]) -> None:
    """ConflictError("memory_insufficient") if the versions that are to have traffic would not fit beside all that has
    it now; NotFoundError("endpoint_not_found")."""
    if services.admission is not None:
        model = services.endpoints.endpoint(name).model
        services.admission.traffic((model, version) for version, share in weights if share > 0)


def revive(services: Services, model: str, version: str) -> dict[str, Any]:
    """Takes a version's mark away; NotFoundError. The workers load it again within a second."""
    known = services.registry.version(model, version)
    revived = services.unhealthy is not None and services.unhealthy.revive(known.model, known.version)
    if revived:
        services.audit.append(Change(AuditAction.VERSION_REVIVE, f"version:{known.model}/{known.version}"))
        emit(Event.MODEL_REVIVED, model=known.model, version=known.version)
    return {"model": known.model, "version": known.version, "revived": revived}
