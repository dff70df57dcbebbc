"""All adapters over one data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelyard.auth.scopes import parse_rate
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.errors import InvalidRequestError, SettingsError
from modelyard.core.settings import LimitsSettings, Settings
from modelyard.retention.ports import Archive
from modelyard.storage.artifacts import open_artifacts
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.sql.analytics.store import SqlAnalyticsStore
from modelyard.storage.sql.audit.log import SqlAuditLog
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.keys import SqlKeyStore
from modelyard.storage.sql.leases import SqlLeases
from modelyard.storage.sql.records.erasure import SqlErasureStore
from modelyard.storage.sql.records.leaving import SqlLeavingRecords
from modelyard.storage.sql.records.log import SqlRecordLog
from modelyard.storage.sql.records.outcomes import SqlOutcomeStore
from modelyard.storage.sql.records.quarantine import SqlQuarantineLog
from modelyard.storage.sql.records.retention import SqlHoldStore, SqlRetentionStore
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.registry import SqlEndpointStore, SqlRegistry
from modelyard.storage.sql.upgrade import upgrade_to_head
from modelyard.storage.sql.usage import SqlUsageStore
from modelyard.storage.stores import Stores

__all__ = ["DATABASE_FILE", "Stores", "open_stores"]

DATABASE_FILE = "modelyard.db"
AUDIT_HEAD_FILE = "audit-head"
DYNAMODB = "dynamodb://"


def open_stores(
    settings: Settings, data: Path, clock: Clock | None = None, breathe: Callable[[], object] | None = None
) -> Stores:
    """Opens the database (`database.url`, or a SQLite file in `data`) at a schema that this program works with, and the
    artifacts folder. With `dynamodb://` the tables are there already; they are looked at.

    Every change of keys, versions and traffic leaves its event in the audit log, stamped by `clock`. `breathe` is
    called again and again while a long statement runs. Makes `data` if it is not there, private (0700). May be called
    by several processes at once, each for itself.
    SettingsError("setting_invalid" | "data_folder_unusable" | "schema_outdated" | "copy_unfinished").
    """
    default_rate = _default_rate(settings.limits)
    _make_folder(data)
    url = settings.database.url or sqlite_url(data / DATABASE_FILE)
    heads = HeadFile(data / AUDIT_HEAD_FILE)
    if url.startswith(DYNAMODB):
        from modelyard.storage.dynamodb.open import open_dynamodb

        if settings.retention.archive_url is not None:
            raise _no_archive()
        time = clock or SystemClock()
        return open_dynamodb(settings, heads, open_artifacts(settings.artifacts, data, time), default_rate, time)
    database = Database(url, settings.database.busy_timeout_s, breathe)
    database.open()
    trail = AuditTrail(heads, clock or SystemClock())
    try:
        upgrade_to_head(database, at_start=settings.database.upgrade)
        return Stores(
            keys=SqlKeyStore(database, trail, default_rate, settings.limits.max_clients),
            usage=SqlUsageStore(database),
            endpoints=SqlEndpointStore(database, trail),
            registry=SqlRegistry(database, trail),
            artifacts=open_artifacts(settings.artifacts, data, clock or SystemClock()),
            sink=SqlRecordSink(database),
            log=SqlRecordLog(database),
            outcomes=SqlOutcomeStore(database),
            quarantine=SqlQuarantineLog(database),
            audit=SqlAuditLog(database, trail, heads),
            retention=SqlRetentionStore(database, trail),
            holds=SqlHoldStore(database, trail),
            leases=SqlLeases(database),
            erasures=SqlErasureStore(database, trail),
            ping=database.ping,
            close=database.close,
            analytics=SqlAnalyticsStore(database),
            leaving=SqlLeavingRecords(database, trail),
            archive=_archive(settings),
        )
    except BaseException:
        database.close()
        raise


def _archive(settings: Settings) -> Archive | None:
    if settings.retention.archive_url is None:
        return None
    from modelyard.storage.archive.files import ParquetArchive
    from modelyard.storage.archive.places import open_place

    return ParquetArchive(open_place(settings.retention.archive_url, settings.artifacts))


def _no_archive() -> SettingsError:
    return SettingsError(
        "setting_invalid",
        "The archive takes no records from DynamoDB: unset `retention.archive_url`, or use another database.",
        field="retention.archive_url",
    )


def _default_rate(limits: LimitsSettings) -> tuple[int, float, int]:
    try:
        return parse_rate(limits.default_rate)
    except InvalidRequestError as error:
        raise SettingsError(
            "setting_invalid",
            "The setting `limits.default_rate` is not a rate.",
            **{**error.detail, "field": "limits.default_rate"},
        ) from None


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            "data_folder_unusable", f"The data folder `{data}` cannot be made: {error.strerror}.", field="data"
        ) from error
