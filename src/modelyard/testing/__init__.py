"""Public fakes: what a test uses in place of the world.

One memory store per port (`memory_stores()` makes a connected set of them), a clock that turns only when told, a
runtime and a model whose arithmetic is known, and builders for the values that travel between them. The contract
suites in `tests/contract/` run on these fakes and on every real adapter alike, so what passes with a fake passes
with the real thing.
"""

from modelyard.testing.artifacts import MemoryArtifactStore
from modelyard.testing.audit import MemoryAuditLog, audit_events
from modelyard.testing.builders import (
    fill_log,
    key,
    manifest,
    prediction_record,
    servable,
    signature,
    version,
    version_folder,
)
from modelyard.testing.clock import FakeClock
from modelyard.testing.keys import MemoryKeyStore, MemoryUsageStore, SnapshotVersion
from modelyard.testing.limits import MemoryRateCounter, MemoryRemoteCounter
from modelyard.testing.models import MemoryEndpointStore, MemoryRegistry
from modelyard.testing.records import MemoryRecordLog, MemoryRecordSink
from modelyard.testing.stores import memory_stores
from modelyard.testing.stub import StubModel, StubRuntime

__all__ = [
    "FakeClock",
    "MemoryArtifactStore",
    "MemoryAuditLog",
    "MemoryEndpointStore",
    "MemoryKeyStore",
    "MemoryRateCounter",
    "MemoryRecordLog",
    "MemoryRecordSink",
    "MemoryRegistry",
    "MemoryRemoteCounter",
    "MemoryUsageStore",
    "SnapshotVersion",
    "StubModel",
    "StubRuntime",
    "audit_events",
    "fill_log",
    "key",
    "manifest",
    "memory_stores",
    "prediction_record",
    "servable",
    "signature",
    "version",
    "version_folder",
]
