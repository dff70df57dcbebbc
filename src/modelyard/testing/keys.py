"""Keys in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.ports import KEEP, Client, ClientBounds, Key, KeySnapshot, QuotaUse
from modelyard.auth.scopes import Rate
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
        self,
        name: str,
        rate_count: int | None,
        rate_period_s: float | None,
        burst: int | None,
        bounds: ClientBounds = KEEP,
    ) -> Client:
        """The client of this name, made or changed; UnavailableError when no slot is left."""
        wanted = {"rate_count": rate_count, "rate_period_s": rate_period_s, "burst": burst}
        given = {field: value for field, value in wanted.items() if value is not None}
        with self._version.lock:
            before = self._clients.get(name)
            slot = len(self._clients)
            if before is None and slot >= self._max_clients:
                raise refusals.no_slot_left(self._max_clients)
            after = msgspec.structs.replace(
                before or Client(f"c{slot}", name, slot, *self._default_rate), **given, **given_bounds(bounds)
            )
            if after != before:
                self._clients[name] = after
                self._version.bump()
                action = AuditAction.CLIENT_CHANGE if before else AuditAction.CLIENT_CREATE
                facts = client_facts(before) if before else None
                self._version.audit.record(action, f"client:{name}", facts, client_facts(after))
            return after

    def add(self, key: Key, replaced_ends_at: float | None = None) -> None:
        """Stores a new key, and ends the one that it replaces; InternalError for an unknown client or a key that is
        there."""
        with self._version.lock:
            unknown = all(client.id != key.client_id for client in self._clients.values())
            if unknown or key.id in self._keys or any(k.secret_hash == key.secret_hash for k in self._keys.values()):
                raise InternalError("internal", "The key store refused a key.")
            action, subject, before, after = AuditAction.KEY_CREATE, key.id, None, key_facts(key)
            if key.replaces is not None and replaced_ends_at is not None:
                old = refusals.check_replaceable(key, self._keys.values())
                self._keys[old.id] = msgspec.structs.replace(
                    old, expires_at=min(old.expires_at or replaced_ends_at, replaced_ends_at)
                )
                action, subject, before = AuditAction.KEY_ROTATE, old.id, key_facts(old)
                after = {"replaced_by": key.id, **after}
            self._keys[key.id] = key
            self._version.bump()
            self._version.audit.record(action, f"key:{subject}", before, after)

    def update(
        self,
        key_id: str,
        *,
        models: tuple[str, ...] | UnsetType = UNSET,
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
    ) -> Key:
        """Changes a key and its client, together."""
        with self._version.lock:
            before = self._keys.get(key_id)
            if before is None:
                raise refusals.key_not_found(key_id)
            name = next(client.name for client in self._clients.values() if client.id == before.client_id)
            count, period_s, burst = rate or (None, None, None)
            self.ensure_client(name, count, period_s, burst, bounds)
            if isinstance(models, UnsetType) or before.models == models:
                return before
            self._keys[key_id] = after = msgspec.structs.replace(before, models=models)
            self._version.bump()
            self._version.audit.record(AuditAction.KEY_CHANGE, f"key:{key_id}", key_facts(before), key_facts(after))
            return after

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked; the first time of revocation stays."""
        with self._version.lock:
            if key_id not in self._keys:
                raise refusals.key_not_found(key_id)
            self.revoke_all((key_id,), at)
            return self._keys[key_id]

    def revoke_all(self, key_ids: Sequence[str], at: float) -> tuple[Key, ...]:
        """Marks these keys revoked; those that it changed."""
        with self._version.lock:
            found = [self._keys[key_id] for key_id in dict.fromkeys(key_ids) if key_id in self._keys]
            before = [key for key in found if key.revoked_at is None]
            ended = tuple(msgspec.structs.replace(key, revoked_at=at) for key in before)
            for old, new in zip(before, ended, strict=True):
                self._keys[new.id] = new
                self._version.audit.record(AuditAction.KEY_REVOKE, f"key:{new.id}", key_facts(old), key_facts(new))
            if ended:
                self._version.bump()
            return ended

    def version(self) -> int:
        """The snapshot version now."""
        return self._version.value


class MemoryUsageStore:
    """auth.ports.UsageStore in memory, safe for threads."""

    def __init__(self, keys: MemoryKeyStore) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._used_at: dict[str, float] = {}
        self._quotas: dict[tuple[str, int], QuotaUse] = {}

    def record_uses(self, used_at: Mapping[str, float]) -> None:
        """Notes when keys were last used."""
        known = {key.id for key in self._keys.snapshot().keys}
        with self._lock:
            self._used_at |= {key_id: at for key_id, at in used_at.items() if key_id in known}

    def last_uses(self) -> dict[str, float]:
        """When each key was last used."""
        with self._lock:
            return dict(self._used_at)

    def keep_quotas(self, used: Sequence[QuotaUse]) -> None:
        """Stores what clients used."""
        known = {client.id for client in self._keys.snapshot().clients}
        with self._lock:
            for use in used:
                if use.client_id not in known:
                    continue
                place = use.client_id, use.day % 4
                before = self._quotas.get(place)
                if before is None or before.day != use.day or before.used < use.used:
                    self._quotas[place] = use

    def quotas(self) -> tuple[QuotaUse, ...]:
        """All that was kept."""
        with self._lock:
            return tuple(self._quotas.values())


def given_bounds(bounds: ClientBounds) -> dict[str, object]:
    """What is to be changed, by the names of Client's fields."""
    return {name: value for name, value in msgspec.structs.asdict(bounds).items() if value is not UNSET}
