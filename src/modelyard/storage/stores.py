"""A complete set of adapters, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.analytics.ports import AnalyticsStore
from modelyard.audit.ports import AuditLog
from modelyard.auth.ports import KeyStore, UsageStore
from modelyard.core.lease import Leases
from modelyard.journal.ports import OutcomeStore, QuarantineLog, RecordLog, RecordSink
from modelyard.models.ports import ArtifactStore, Registry
from modelyard.retention.ports import Archive, ErasureStore, HoldStore, LeavingRecords, RetentionStore
from modelyard.routing.ports import EndpointStore


@dataclass(frozen=True)
class Stores:
    """One adapter per port over one set of data. `ping` returns if the database answers, else raises
    UnavailableError("store_unavailable"); `close` gives everything back, a second call does nothing."""

    keys: KeyStore
    usage: UsageStore
    endpoints: EndpointStore
    registry: Registry
    artifacts: ArtifactStore
    sink: RecordSink
    log: RecordLog
    outcomes: OutcomeStore
    quarantine: QuarantineLog
    audit: AuditLog
    retention: RetentionStore
    holds: HoldStore
    leases: Leases
    erasures: ErasureStore
    ping: Callable[[], None]
    close: Callable[[], None]
    analytics: AnalyticsStore | None = None
    """None where the database has no rollups."""
    leaving: LeavingRecords | None = None
    archive: Archive | None = None
    """None without `retention.archive_url`."""
