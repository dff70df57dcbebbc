"""What auth needs from the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from modelyard.auth.scopes import Rate

EVERY_MODEL = ("*",)


class Client(msgspec.Struct, frozen=True):
    """One external client. `slot` is its place in the shared limit tables, never reused while it has a key.
    `rate_count` requests may be made per `rate_period_s` seconds, `burst` of them at once; `quota_per_day` predictions
    per UTC day, `concurrency` at the same time (None: no bound of its own). `models` are glob patterns that bound all
    of its keys."""

    id: str
    name: str
    slot: int
    rate_count: int
    rate_period_s: float
    burst: int
    quota_per_day: int | None = None
    concurrency: int | None = None
    models: tuple[str, ...] = EVERY_MODEL


class ClientBounds(msgspec.Struct, frozen=True):
    """What to change of a client beside its rate; UNSET keeps, None takes a bound away."""

    quota_per_day: int | UnsetType | None = UNSET
    concurrency: int | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType = UNSET


KEEP = ClientBounds()


class Key(msgspec.Struct, frozen=True):
    """One API key, without its secret. `secret_hash` is SHA-256 of the whole key text (32 bytes). Times are UNIX
    seconds. `models` are glob patterns; `scopes` are names of `auth.scopes.Scope`. `replaces` is the id of the key
    that this one was made for by a rotation."""

    id: str
    client_id: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    replaces: str | None = None


def is_active(key: Key, now: float) -> bool:
    """Whether the key opens anything at UNIX time `now`."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


class KeySnapshot(msgspec.Struct, frozen=True):
    """All keys and clients at one moment; `version` grows with every change."""

    version: int
    clients: tuple[Client, ...]
    keys: tuple[Key, ...]


class KeySource(Protocol):
    """What a worker follows."""

    def snapshot(self) -> KeySnapshot:
        """All clients and keys."""

    def version(self) -> int:
        """The snapshot version now; cheap, polled twice a second."""


class KeyStore(KeySource, Protocol):
    """Where keys live. Each change bumps the snapshot version in the same transaction."""

    def ensure_client(
        self,
        name: str,
        rate_count: int | None,
        rate_period_s: float | None,
        burst: int | None,
        bounds: ClientBounds = KEEP,
    ) -> Client:
        """The client of this name, made if it is new, its rate and bounds changed where they are given (None, UNSET:
        kept, or the store's default for a new one). Slots are assigned densely from 0."""

    def add(self, key: Key, replaced_ends_at: float | None = None) -> None:
        """Stores a new key. If it replaces one, that one expires at `replaced_ends_at` at the latest; NotFoundError
        ("key_not_found"), ConflictError("key_not_active") if that one is revoked, has expired by `key.created_at`, or
        has been replaced by a key that is active."""

    def update(
        self,
        key_id: str,
        *,
        models: tuple[str, ...] | UnsetType = UNSET,
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
    ) -> Key:
        """Changes a key's models and its client's rate and bounds, together; NotFoundError("key_not_found")."""

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked (idempotent) and returns it; NotFoundError("key_not_found")."""

    def revoke_all(self, key_ids: Sequence[str], at: float) -> tuple[Key, ...]:
        """Marks these keys revoked, all or none; those that it changed. Ids that nobody has are passed over."""


class UsageStore(Protocol):
    """What is remembered of keys' and clients' use. Nothing of it bumps the snapshot version."""

    def record_uses(self, used_at: Mapping[str, float]) -> None:
        """Notes when keys (by id) were last used, UNIX seconds; the latest call wins. Unknown keys are passed over."""

    def last_uses(self) -> dict[str, float]:
        """When each key was last used; a key that never was is not in it."""

    def keep_quotas(self, used: Sequence[QuotaUse]) -> None:
        """Stores how much of their quotas clients used; of one client and day the larger figure stays. Unknown
        clients are passed over. A client's figures of the last four days are kept, in the place `day % 4`."""

    def quotas(self) -> tuple[QuotaUse, ...]:
        """All that was kept."""


class QuotaUse(msgspec.Struct, frozen=True):
    """`used` predictions of a client on one UTC day (whole days since 1970-01-01)."""

    client_id: str
    day: int
    used: int
