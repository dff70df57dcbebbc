"""What the audit log keeps of backups: in the folder that was backed up, and in the one that was restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.app.folder import DataFolder
from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.backup.manifest import BackupManifest
from modelyard.core.clock import Clock
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.sql.audit.log import SqlAuditLog
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.open import AUDIT_HEAD_FILE


def record(data: Path, action: AuditAction, manifest: BackupManifest, sha256: str, clock: Clock, busy_s: float) -> None:
    """Writes down that this backup, known by the hash of its manifest, was made of a folder, or restored into it.

    The schema stays as it is. UnavailableError("store_unavailable").
    """
    database = Database(sqlite_url(DataFolder(data).database), busy_s)
    try:
        database.open()
        heads = HeadFile(data / AUDIT_HEAD_FILE)
        log = SqlAuditLog(database, AuditTrail(heads, clock), heads)
        log.append(Change(action, f"backup:{sha256}", None, facts(manifest)))
    finally:
        database.close()


def facts(manifest: BackupManifest) -> dict[str, Any]:
    """What is recorded of a backup: not where it lies, which is nothing that stays true."""
    return {
        "created_at": manifest.created_at,
        "program": manifest.program,
        "schema": manifest.schema,
        "size_bytes": manifest.size_bytes,
        "counts": dict(manifest.counts),
        "waiting": manifest.waiting,
    }
