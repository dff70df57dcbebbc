"""Who presents this key? The immutable snapshot that a request is checked against, in about a microsecond."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from math import inf
from typing import NamedTuple

import msgspec

from modelyard.auth.keys import parse_key
from modelyard.auth.ports import EVERY_MODEL, Client, Key, KeySnapshot
from modelyard.auth.scopes import IMPLIED, Scope
from modelyard.core.errors import AuthenticationError, AuthorizationError

MEMO_ENTRIES = 1024
"""Model names that a key's matcher remembers; it starts over when a caller makes up more."""

_DECOY = bytes(32)


class ModelMatcher:
    """Whether a key may use a model. Glob patterns (fnmatch), each name matched once and remembered. The key's
    patterns count within its client's; `patterns` are the narrower ones, `*` only where both allow every model."""

    __slots__ = ("_expression", "_memo", "_within", "patterns")

    def __init__(self, patterns: Sequence[str], within: Sequence[str] = EVERY_MODEL) -> None:
        bound = "*" not in within
        self.patterns = tuple(within if bound and "*" in patterns else patterns)
        self._expression = _expression(patterns)
        self._within = _expression(within) if bound else None
        self._memo: dict[str, bool] = {}

    def allows(self, model: str) -> bool:
        """Whether a pattern of the key, and one of its client, matches the whole name."""
        known = self._memo.get(model)
        if known is not None:
            return known
        allowed = self._expression.match(model) is not None
        if allowed and self._within is not None:
            allowed = self._within.match(model) is not None
        if len(self._memo) >= MEMO_ENTRIES:
            self._memo.clear()
        if len(model) <= 128:
            self._memo[model] = allowed
        return allowed


def _expression(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


class Principal(msgspec.Struct, frozen=True, eq=False):
    """Who is calling and what it may do. `interval_s` is the time between requests at its sustained rate (`rate`, as
    count and seconds), `slot` its place in the shared limit tables; `quota_per_day` predictions per UTC day and
    `concurrency` at the same time (None: no bound of its own); `expires_at` UNIX seconds."""

    key_id: str
    client_id: str
    client: str
    slot: int
    interval_s: float
    burst: int
    scopes: frozenset[str]
    models: ModelMatcher
    rate: tuple[int, float] = (1, 1.0)
    quota_per_day: int | None = None
    concurrency: int | None = None
    expires_at: float | None = None

    def require(self, scope: Scope, model: str | None = None) -> None:
        """Returns if the key has the scope and may use the model (any, if None); AuthorizationError otherwise."""
        if scope not in self.scopes:
            raise AuthorizationError(
                "scope_missing",
                f"This key may not do this: it lacks the scope `{scope}`.",
                field="scope",
                expected=str(scope),
                got=" ".join(sorted(self.scopes)),
            )
        if model is not None and not self.models.allows(model):
            raise AuthorizationError(
                "model_not_allowed",
                f"This key may not use the model `{model[:128]}`.",
                field="model",
                expected=" ".join(self.models.patterns),
                got=model[:128],
            )


class _Entry(NamedTuple):
    hash: bytes
    principal: Principal
    expires_at: float
    revoked: bool


class KeyTable:
    """All keys at one moment. A presented key is hashed once and looked up by its hash: an unknown identifier and a
    wrong secret take the same road to the same refusal (promise P7). `quota_slots`: clients with a quota, by id."""

    __slots__ = ("_entries", "quota_slots", "version")

    def __init__(self, snapshot: KeySnapshot) -> None:
        clients = {client.id: client for client in snapshot.clients}
        self.version = snapshot.version
        self.quota_slots: Mapping[str, int] = {
            client.id: client.slot for client in snapshot.clients if client.quota_per_day is not None
        }
        self._entries = {
            key.secret_hash: _entry(key, clients[key.client_id]) for key in snapshot.keys if key.client_id in clients
        }

    def authenticate(self, presented: bytes | None, now: float) -> Principal:
        """The caller that this key belongs to, at UNIX time `now`.

        Raises AuthenticationError: key_missing, key_malformed, key_invalid, key_revoked, key_expired. The last two
        are only ever told to who holds the whole secret.
        """
        if not presented:
            raise AuthenticationError(
                "key_missing",
                "Send an API key in the header `x-api-key`, or as `Authorization: Bearer …`.",
                field="x-api-key",
                expected="mdy_…",
            )
        digest = sha256(presented).digest()
        entry = self._entries.get(digest)
        # The lookup is by hash, so its time says nothing about a stored secret; the comparison makes the check
        # independent of how a dictionary compares.
        if not compare_digest(entry.hash if entry is not None else _DECOY, digest) or entry is None:
            parse_key(presented)
            raise AuthenticationError("key_invalid", "This key is not known here.", field="x-api-key")
        if entry.revoked:
            raise AuthenticationError("key_revoked", "This key was revoked.", field="x-api-key")
        if entry.expires_at <= now:
            raise AuthenticationError("key_expired", "This key has expired.", field="x-api-key")
        return entry.principal


def _entry(key: Key, client: Client) -> _Entry:
    scopes = {Scope(name) for name in key.scopes if name in Scope.__members__.values()}
    for scope in tuple(scopes):
        scopes |= IMPLIED.get(scope, frozenset())
    principal = Principal(
        key_id=key.id,
        client_id=client.id,
        client=client.name,
        slot=client.slot,
        interval_s=client.rate_period_s / client.rate_count,
        burst=client.burst,
        scopes=frozenset(scopes),
        models=ModelMatcher(key.models, client.models),
        rate=(client.rate_count, client.rate_period_s),
        quota_per_day=client.quota_per_day,
        concurrency=client.concurrency,
        expires_at=key.expires_at,
    )
    return _Entry(
        key.secret_hash, principal, inf if key.expires_at is None else key.expires_at, key.revoked_at is not None
    )
