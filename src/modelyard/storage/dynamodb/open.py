"""All stores over two tables."""

from __future__ import annotations

from modelyard.auth.ports import KeyStore
from modelyard.core.clock import Clock
from modelyard.core.settings import Settings
from modelyard.models.ports import ArtifactStore
from modelyard.storage.dynamodb.client import Client, check_usable
from modelyard.storage.dynamodb.metadata.audit import DynamoAuditLog
from modelyard.storage.dynamodb.metadata.keys import DynamoKeyStore
from modelyard.storage.dynamodb.metadata.leases import DynamoLeases
from modelyard.storage.dynamodb.metadata.registry import DynamoEndpointStore, DynamoRegistry
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.metadata.usage import DynamoUsageStore
from modelyard.storage.dynamodb.records.feeds import Feeds
from modelyard.storage.dynamodb.records.layout import Expiry
from modelyard.storage.dynamodb.records.leaving.age import DynamoRetentionStore
from modelyard.storage.dynamodb.records.leaving.holds import DynamoHoldStore
from modelyard.storage.dynamodb.records.leaving.subject import DynamoErasureStore
from modelyard.storage.dynamodb.records.log import DynamoRecordLog
from modelyard.storage.dynamodb.records.outcomes import DynamoOutcomeStore
from modelyard.storage.dynamodb.records.quarantine import DynamoQuarantineLog
from modelyard.storage.dynamodb.records.search import Search
from modelyard.storage.dynamodb.records.sink import DynamoRecordSink
from modelyard.storage.dynamodb.requests import Requests
from modelyard.storage.dynamodb.tables import INDEXES, METADATA, PREDICTIONS, Tables, check_table
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.stores import Stores


class DynamoDatabase:
    """The two tables of one prefix, checked at `open`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        check_usable(settings.database)
        self.tables = Tables.parse(settings.database.url or "")
        self.requests = Requests(Client(settings.database), settings.database.busy_timeout_s, clock)
        self.metadata = Metadata(self.requests, self.tables.metadata)

    def open(self) -> None:
        """SettingsError("setting_invalid") if a table is not as ours, UnavailableError("store_unavailable") if one is
        missing or not reached."""
        for table, kind in ((self.tables.metadata, METADATA), (self.tables.predictions, PREDICTIONS)):
            check_table(self.requests.describe(table), table, INDEXES[kind])

    def ping(self) -> None:
        """Returns if the table of metadata answers; UnavailableError("store_unavailable") otherwise."""
        self.metadata.version()

    def close(self) -> None:
        """Closes the connections."""
        self.requests.client.close()


def open_dynamodb(
    settings: Settings, heads: HeadFile, artifacts: ArtifactStore, default_rate: tuple[int, float, int], clock: Clock
) -> Stores:
    """All stores over the tables of `database.url`. SettingsError("setting_invalid"),
    UnavailableError("store_unavailable")."""
    database = DynamoDatabase(settings, clock)
    metadata, trail = database.metadata, AuditTrail(heads, clock)
    feeds, expiry = Feeds(database.requests, database.tables.predictions), Expiry.of(settings.retention)
    outcomes, search = DynamoOutcomeStore(feeds), Search(feeds)
    keys: KeyStore = DynamoKeyStore(metadata, trail, default_rate, settings.limits.max_clients)
    try:
        database.open()
    except BaseException:
        database.close()
        raise
    return Stores(
        keys=keys,
        usage=DynamoUsageStore(metadata),
        endpoints=DynamoEndpointStore(metadata, trail),
        registry=DynamoRegistry(metadata, trail),
        artifacts=artifacts,
        sink=DynamoRecordSink(feeds, metadata, outcomes, expiry),
        log=DynamoRecordLog(search),
        outcomes=outcomes,
        quarantine=DynamoQuarantineLog(feeds),
        audit=DynamoAuditLog(metadata, trail, heads),
        retention=DynamoRetentionStore(metadata, trail, feeds),
        holds=DynamoHoldStore(metadata, trail, feeds, expiry),
        leases=DynamoLeases(metadata),
        erasures=DynamoErasureStore(metadata, trail, feeds),
        ping=database.ping,
        close=database.close,
    )
