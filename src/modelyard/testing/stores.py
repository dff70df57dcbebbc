"""A connected set of memory stores."""

from __future__ import annotations

from modelyard.storage.stores import Stores
from modelyard.testing.analytics.archive import MemoryLeavingRecords
from modelyard.testing.analytics.memory import MemoryAnalyticsStore
from modelyard.testing.artifacts import MemoryArtifactStore
from modelyard.testing.keys import DEFAULT_RATE, MemoryKeyStore, MemoryUsageStore, SnapshotVersion
from modelyard.testing.models import MemoryRegistry
from modelyard.testing.records import (
    MemoryOutcomeStore,
    MemoryQuarantineLog,
    MemoryRecordLog,
    MemoryRecordSink,
    MemoryRetention,
)


def memory_stores(default_rate: tuple[int, float, int] = DEFAULT_RATE, max_clients: int = 65_536) -> Stores:
    """What `storage.sql.open.open_stores` gives, in memory: one snapshot version for all, nothing to close."""
    changes = SnapshotVersion()
    registry = MemoryRegistry(changes)
    keys = MemoryKeyStore(changes, default_rate, max_clients)
    sink = MemoryRecordSink(registry.manifest)
    outcomes = MemoryOutcomeStore(sink)
    retention = MemoryRetention(sink, outcomes, changes.audit.record)
    return Stores(
        keys=keys,
        usage=MemoryUsageStore(keys),
        endpoints=registry.endpoints,
        registry=registry,
        artifacts=MemoryArtifactStore(),
        sink=sink,
        log=MemoryRecordLog(sink, outcomes),
        outcomes=outcomes,
        quarantine=MemoryQuarantineLog(sink),
        audit=changes.audit,
        retention=retention,
        holds=retention,
        leases=retention.leases,
        erasures=retention,
        ping=lambda: None,
        close=lambda: None,
        analytics=MemoryAnalyticsStore(sink, retention.leases),
        leaving=MemoryLeavingRecords(retention, outcomes, changes.audit.record),
    )
