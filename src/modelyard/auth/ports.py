"""What auth needs from the world."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Client(msgspec.Struct, frozen=True):
    """One external client. `slot` is its place in the shared limit table, never reused while it has a key.
    `rate_count` requests may be made per `rate_period_s` seconds, `burst` of them at once."""

    id: str
    name: str
    slot: int
    rate_count: int
    rate_period_s: float
    burst: int


class Key(msgspec.Struct, frozen=True):
    """One API key, without its secret. `secret_hash` is SHA-256 of the whole key text (32 bytes). Times are UNIX
    seconds. `models` are glob patterns; `scopes` are names of `auth.scopes.Scope`."""

    id: str
    client_id: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


class KeySnapshot(msgspec.Struct, frozen=True):
    """All keys and clients at one moment; `version` grows with every change."""

    version: int
    clients: tuple[Client, ...]
    keys: tuple[Key, ...]


class KeyStore(Protocol):
    """Where keys live. Each change bumps the snapshot version in the same transaction."""

    def snapshot(self) -> KeySnapshot:
        """All clients and keys."""

    def ensure_client(
        self, name: str, rate_count: int | None, rate_period_s: float | None, burst: int | None
    ) -> Client:
        """The client of this name, made if it is new, its rate changed where one is given (None: kept, or the
        store's default for a new one). Slots are assigned densely from 0."""

    def add(self, key: Key) -> None:
        """Stores a new key."""

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked (idempotent) and returns it; NotFoundError("key_not_found")."""

    def version(self) -> int:
        """The snapshot version now; cheap, polled twice a second."""
