"""Keys in memory."""

from __future__ import annotations

import threading

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.ports import Client, Key, KeySnapshot
from modelyard.core.errors import InternalError
from modelyard.storage import refusals
from modelyard.storage.audit_row import client_facts, key_facts
from modelyard.testing.audit import MemoryAuditLog

DEFAULT_RATE = (1000, 1.0, 1000)


class SnapshotVersion:
    """What all stores of one set share: the version, the lock under which they change together, and the audit log
    that their changes are written down in."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.audit = MemoryAuditLog(self.lock)
        self.value = 0

    def bump(self) -> None:
        """Says that something changed; called under the lock."""
        self.value += 1


class MemoryKeyStore:
    """auth.ports.KeyStore in memory, safe for threads. Client ids are `c0`, `c1`, …"""

    def __init__(
        self,
        snapshot_version: SnapshotVersion | None = None,
        default_rate: tuple[int, float, int] = DEFAULT_RATE,
        max_clients: int = 65_536,
    ) -> None:
        self._version = snapshot_version or SnapshotVersion()
        self._default_rate = default_rate
        self._max_clients = max_clients
        self._clients: dict[str, Client] = {}
        self._keys: dict[str, Key] = {}

    def snapshot(self) -> KeySnapshot:
        """All clients by slot and keys by id."""
        with self._version.lock:
            keys = tuple(self._keys[key_id] for key_id in sorted(self._keys))
            return KeySnapshot(self._version.value, tuple(self._clients.values()), keys)

    def ensure_client(
        self, name: str, rate_count: int | None, rate_period_s: float | None, burst: int | None
    ) -> Client:
        """The client of this name, made or changed; UnavailableError when no slot is left."""
        wanted = {"rate_count": rate_count, "rate_period_s": rate_period_s, "burst": burst}
        given = {field: value for field, value in wanted.items() if value is not None}
        with self._version.lock:
            before = self._clients.get(name)
            slot = len(self._clients)
            if before is None and slot >= self._max_clients:
                raise refusals.no_slot_left(self._max_clients)
            after = msgspec.structs.replace(before or Client(f"c{slot}", name, slot, *self._default_rate), **given)
            if after != before:
                self._clients[name] = after
                self._version.bump()
                action = AuditAction.CLIENT_CHANGE if before else AuditAction.CLIENT_CREATE
                facts = client_facts(before) if before else None
                self._version.audit.record(action, f"client:{name}", facts, client_facts(after))
            return after

    def add(self, key: Key) -> None:
        """Stores a new key; InternalError for an unknown client or a key that is there."""
        with self._version.lock:
            unknown = all(client.id != key.client_id for client in self._clients.values())
            if unknown or key.id in self._keys or any(k.secret_hash == key.secret_hash for k in self._keys.values()):
                raise InternalError("internal", "The key store refused a key.")
            self._keys[key.id] = key
            self._version.bump()
            self._version.audit.record(AuditAction.KEY_CREATE, f"key:{key.id}", None, key_facts(key))

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked; the first time of revocation stays."""
        with self._version.lock:
            key = self._keys.get(key_id)
            if key is None:
                raise refusals.key_not_found(key_id)
            if key.revoked_at is None:
                before, key = key, msgspec.structs.replace(key, revoked_at=at)
                self._keys[key_id] = key
                self._version.bump()
                facts = key_facts(before), key_facts(key)
                self._version.audit.record(AuditAction.KEY_REVOKE, f"key:{key_id}", *facts)
            return key

    def version(self) -> int:
        """The snapshot version now."""
        return self._version.value
