"""API keys: how they look, how they are made, issued and revoked.

A key reads `mdy_<id>_<secret>_<checksum>`: 12 base62 digits that name it, 43 that hold a 256-bit secret, 6 with the
CRC-32 of all before, so that a mistyped key and a key found by a scanner are told apart from noise without asking
anybody. Only SHA-256 of the whole text is stored: 256 random bits need no slow hash and no salt.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import SecretStr

from modelyard.auth.ports import KEEP, Client, ClientBounds, Key, KeySnapshot, KeyStore
from modelyard.auth.scopes import Rate, Scope, parse_scopes
from modelyard.core.clock import Clock
from modelyard.core.errors import AuthenticationError, InvalidRequestError, NotFoundError
from modelyard.core.types import NAME

Randomness = Callable[[int], bytes]
"""So many random bytes; `secrets.token_bytes` outside tests."""

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_DIGITS, SECRET_DIGITS, CHECKSUM_DIGITS = 12, 43, 6
OVERLAP_S = 86_400.0
"""How long a key lives on beside the one that replaces it, unless the caller says otherwise."""
MIN_GIVEN_CHARS = 32
"""A key that an operator brings along must have at least so many characters."""

_KEY = re.compile(rb"(mdy_([0-9A-Za-z]{12})_[0-9A-Za-z]{43})_([0-9A-Za-z]{6})")
_GIVEN = re.compile(rf"[\x21-\x7e]{{{MIN_GIVEN_CHARS},256}}")
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")


class NewKey(NamedTuple):
    """A key text, its identifier, and the SHA-256 that is stored."""

    text: str
    id: str
    hash: bytes


class IssuedKey(msgspec.Struct, frozen=True):
    """A key just issued; `text` is the only time that anybody sees it, and prints as stars."""

    text: SecretStr
    key: Key
    client: Client


def new_key(randomness: Randomness = secrets.token_bytes) -> NewKey:
    """A new key from 9 + 32 random bytes."""
    key_id = _base62(int.from_bytes(randomness(9)) % 62**ID_DIGITS, ID_DIGITS)
    body = f"mdy_{key_id}_{_base62(int.from_bytes(randomness(32)), SECRET_DIGITS)}"
    text = f"{body}_{_checksum(body.encode())}"
    return NewKey(text, key_id, key_hash(text))


def key_hash(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(text.encode()).digest()


def parse_key(presented: bytes | str) -> str:
    """The identifier in a well-formed key; AuthenticationError("key_malformed") for anything else."""
    raw = presented.encode("utf-8", "replace") if isinstance(presented, str) else presented
    match = _KEY.fullmatch(raw)
    if match is None or _checksum(match[1]).encode() != match[3]:
        raise AuthenticationError(
            "key_malformed",
            "This is not a Modelyard key, or a part of it is missing.",
            field="x-api-key",
            expected="mdy_<12>_<43>_<6>, letters and digits",
            got=f"{len(raw)} characters",
        )
    return match[2].decode()


class KeyIssuer:
    """Issues, lists, changes, rotates and revokes keys in a store."""

    def __init__(self, store: KeyStore, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness

    def create(
        self,
        client: str,
        *,
        scopes: Sequence[str] = (Scope.PREDICT,),
        models: Sequence[str] = ("*",),
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
        expires_in_s: float | None = None,
    ) -> IssuedKey:
        """A new key for `client` (made if new). `rate` None and what is UNSET of `bounds` keep the client's;
        InvalidRequestError names what is wrong: name_invalid, parameter_invalid."""
        made = new_key(self._randomness)
        return self._add(made, client, scopes, models, rate, expires_in_s, bounds)

    def adopt(self, text: str, client: str, *, scopes: Sequence[str], models: Sequence[str] = ("*",)) -> Key:
        """Stores a key that the operator chose (`auth.admin_key`), by its hash; does nothing if it is there.

        Any 32 to 256 printable characters are taken; who brings a short or guessable one weakens only themselves.
        """
        if _GIVEN.fullmatch(text) is None:
            raise InvalidRequestError(
                "parameter_invalid",
                "The given key is too short or holds characters that no header can carry.",
                field="auth.admin_key",
                expected=f"{MIN_GIVEN_CHARS} to 256 printable ASCII characters without spaces",
                got=f"{len(text)} characters",
                example=f"the output of `openssl rand -hex {MIN_GIVEN_CHARS}`",
            )
        digest = key_hash(text)
        for key in self._store.snapshot().keys:
            if key.secret_hash == digest:
                return key
        # The identifier is shown in lists and logs, so it comes from a hash of the hash: it gives nothing away.
        key_id = _base62(int.from_bytes(hashlib.sha256(digest).digest()) % 62**ID_DIGITS, ID_DIGITS)
        return self._add(NewKey(text, key_id, digest), client, scopes, models, None, None).key

    def rotate(self, key_id: str, overlap_s: float = OVERLAP_S) -> IssuedKey:
        """A new key in place of this one: for the same client, scopes, models and length of life. The old one expires
        after `overlap_s`, or earlier if it would have. NotFoundError, ConflictError("key_not_active")."""
        snapshot = self._store.snapshot()
        old = find_key(snapshot, key_id)
        made, now = new_key(self._randomness), self._clock.now()
        key = msgspec.structs.replace(
            old,
            id=made.id,
            secret_hash=made.hash,
            created_at=now,
            expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
            revoked_at=None,
            replaces=old.id,
        )
        self._store.add(key, now + overlap_s)
        owner = next(client for client in snapshot.clients if client.id == old.client_id)
        return IssuedKey(SecretStr(made.text), key, owner)

    def update(
        self,
        key_id: str,
        *,
        models: Sequence[str] | UnsetType = UNSET,
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
    ) -> Key:
        """Changes a key's models and its client's rate and bounds, together; workers follow within a second.
        NotFoundError, InvalidRequestError("parameter_invalid")."""
        patterns = UNSET if isinstance(models, UnsetType) else check_patterns(models)
        return self._store.update(key_id, models=patterns, rate=rate, bounds=check_bounds(bounds))

    def revoke(self, key_id: str) -> Key:
        """Ends a key now; workers follow within a second. A second call changes nothing. NotFoundError."""
        return self._store.revoke(key_id, self._clock.now())

    def revoke_all(self, key_ids: Sequence[str]) -> tuple[Key, ...]:
        """Ends these keys now, all in one change; those that it ended."""
        return self._store.revoke_all(key_ids, self._clock.now())

    def list(self) -> KeySnapshot:
        """All clients and keys, without any secret."""
        return self._store.snapshot()

    def _add(
        self,
        made: NewKey,
        client: str,
        scopes: Sequence[str],
        models: Sequence[str],
        rate: Rate | None,
        expires_in_s: float | None,
        bounds: ClientBounds = KEEP,
    ) -> IssuedKey:
        names, patterns = parse_scopes(scopes), check_patterns(models)
        _check_client(client)
        check_bounds(bounds)
        now = self._clock.now()
        owner = self._store.ensure_client(
            client,
            rate.count if rate else None,
            rate.period_s if rate else None,
            rate.burst if rate else None,
            bounds,
        )
        key = Key(
            id=made.id,
            client_id=owner.id,
            secret_hash=made.hash,
            scopes=tuple(scope.value for scope in names),
            models=patterns,
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        self._store.add(key)
        return IssuedKey(SecretStr(made.text), key, owner)


def find_key(snapshot: KeySnapshot, key_id: str) -> Key:
    """The key of this id; NotFoundError("key_not_found")."""
    for key in snapshot.keys:
        if key.id == key_id:
            return key
    raise NotFoundError("key_not_found", f"There is no key `{key_id[:128]}`.", field="key", got=key_id[:128])


def check_bounds(bounds: ClientBounds) -> ClientBounds:
    """The bounds, if the client's model patterns can match; InvalidRequestError("parameter_invalid")."""
    if not isinstance(bounds.models, UnsetType):
        check_patterns(bounds.models)
    return bounds


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The model patterns, if each can match a model name; InvalidRequestError("parameter_invalid")."""
    for pattern in patterns or ("",):
        if _PATTERN.fullmatch(pattern) is None:
            raise InvalidRequestError(
                "parameter_invalid",
                "A model pattern holds letters, digits, `.`, `_`, `-` and the wildcards `*`, `?`, `[…]`.",
                field="models",
                expected="1 to 128 such characters",
                got=pattern[:128],
                example="tree*",
            )
    return tuple(patterns)


def _check_client(name: str) -> None:
    if NAME.fullmatch(name) is None or ".." in name:
        raise InvalidRequestError(
            "name_invalid",
            "A client's name holds letters, digits, `.`, `_` and `-`.",
            field="client",
            expected="1 to 128 such characters, a letter or digit first and last",
            got=name[:128],
            example="acme-prod",
        )


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = BASE62[digit] + text
    return text
