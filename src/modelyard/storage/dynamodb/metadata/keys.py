"""Keys and clients in the table of metadata.

A client is found by its name and, through a pointer, by its id; a key by its id and, through a pointer, by its hash.
A key names the keys that replace it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.ports import KEEP, Client, ClientBounds, Key, KeySnapshot
from modelyard.auth.scopes import Rate
from modelyard.core.errors import InternalError
from modelyard.storage.audit_row import client_facts, key_facts
from modelyard.storage.dynamodb.attributes import Item
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.refusals import check_replaceable, key_not_found, no_slot_left

CLIENT_ID_BYTES = 8
CLIENTS, CLIENT_IDS, KEYS, HASHES = "client", "client-id", "key", "key-hash"
_Rate = tuple[float | None, ...]


class DynamoKeyStore:
    """auth.ports.KeyStore over the table of metadata. `default_rate` is (count, period in seconds, burst) of a new
    client; `max_clients` bounds the slots; client ids are drawn from `randomness`. Changes are written down in
    `trail`."""

    def __init__(
        self,
        metadata: Metadata,
        trail: AuditTrail,
        default_rate: tuple[int, float, int],
        max_clients: int,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._metadata = metadata
        self._trail = trail
        self._default_rate = default_rate
        self._max_clients = max_clients
        self._randomness = randomness

    def snapshot(self) -> KeySnapshot:
        """All clients and keys, of one moment."""

        def read() -> tuple[list[Client], list[Key]]:
            clients = list(map(_client, self._metadata.all_of(CLIENTS)))
            return clients, list(map(_key, self._metadata.all_of(KEYS)))

        version, (clients, keys) = self._metadata.stable(read)
        return KeySnapshot(version, tuple(sorted(clients, key=lambda one: one.slot)), tuple(keys))

    def version(self) -> int:
        """The snapshot version now: one item by its key."""
        return self._metadata.version()

    def ensure_client(
        self,
        name: str,
        rate_count: int | None,
        rate_period_s: float | None,
        burst: int | None,
        bounds: ClientBounds = KEEP,
    ) -> Client:
        """The client of this name, made or changed; UnavailableError when no slot is left."""
        rate = (rate_count, rate_period_s, burst)

        def ensure(t: Transaction) -> Client:
            found = t.get(CLIENTS, _named(name))
            if found is None:
                return self._new_client(t, name, rate, bounds)
            return self._change_client(t, _client(found), rate, bounds)

        return self._metadata.change(ensure)

    def add(self, key: Key, replaced_ends_at: float | None = None) -> None:
        """Stores a new key, and ends the one that it replaces; InternalError for an unknown client or a key that is
        there."""
        self._metadata.change(lambda t: self._add(t, key, replaced_ends_at))

    def update(
        self,
        key_id: str,
        *,
        models: tuple[str, ...] | UnsetType = UNSET,
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
    ) -> Key:
        """Changes a key and its client in one transaction."""
        return self._metadata.change(lambda t: self._update(t, key_id, models, rate or (), bounds))

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked; the first time of revocation stays."""

        def revoke(t: Transaction) -> Key:
            found = _one_key(t, key_id)
            ended = self._end(t, (found,), at)
            return ended[0] if ended else _key(found)

        return self._metadata.change(revoke)

    def revoke_all(self, key_ids: Sequence[str], at: float) -> tuple[Key, ...]:
        """Marks these keys revoked, in one transaction; those that it changed."""

        def revoke(t: Transaction) -> tuple[Key, ...]:
            wanted = [(KEYS, key_id) for key_id in dict.fromkeys(key_ids)]
            found = self._metadata.get_many(wanted)
            return self._end(t, [found[key] for key in wanted if key in found], at)

        return self._metadata.change(revoke)

    def _new_client(self, t: Transaction, name: str, rate: _Rate, bounds: ClientBounds) -> Client:
        count, period_s, burst = (
            own if own is not None else default for own, default in zip(rate, self._default_rate, strict=True)
        )
        slot = t.head.slots  # clients are never deleted: dense, and no slot is ever given twice
        if slot >= self._max_clients:
            raise no_slot_left(self._max_clients)
        client_id = f"c{self._randomness(CLIENT_ID_BYTES).hex()}"
        client = Client(client_id, name, slot, int(count), float(period_s), int(burst))
        client = msgspec.structs.replace(client, **_given((), bounds))
        _put_client(t, client)
        t.put(CLIENT_IDS, client.id, name=name)
        t.move(slots=slot + 1)
        t.bump()
        self._trail.record(t, AuditAction.CLIENT_CREATE, f"client:{name}", None, client_facts(client))
        return client

    def _change_client(self, t: Transaction, client: Client, rate: _Rate, bounds: ClientBounds) -> Client:
        changed = msgspec.structs.replace(client, **_given(rate, bounds))
        if changed != client:
            _put_client(t, changed)
            t.bump()
            facts = client_facts(client), client_facts(changed)
            self._trail.record(t, AuditAction.CLIENT_CHANGE, f"client:{client.name}", *facts)
        return changed

    def _add(self, t: Transaction, key: Key, replaced_ends_at: float | None) -> None:
        digest = key.secret_hash.hex()
        if t.get(CLIENT_IDS, key.client_id) is None or t.get(KEYS, key.id) or t.get(HASHES, digest):
            raise InternalError("internal", "The key store refused a key.")
        old = None
        if key.replaces is not None:
            old = self._succeed(t, key, key.replaces, replaced_ends_at)
        _put_key(t, key, ())
        t.put(HASHES, digest, key=key.id)
        t.bump()
        if old is None:
            self._trail.record(t, AuditAction.KEY_CREATE, f"key:{key.id}", None, key_facts(key))
        else:
            facts = key_facts(old), {"replaced_by": key.id, **key_facts(key)}
            self._trail.record(t, AuditAction.KEY_ROTATE, f"key:{old.id}", *facts)

    def _succeed(self, t: Transaction, key: Key, replaces: str, ends_at: float | None) -> Key | None:
        """Notes the successor with the key that it replaces, and ends that one; as it was before, None if it goes
        on."""
        found = t.get(KEYS, replaces)
        successors = _successors(found)
        if ends_at is None:
            if found is not None:
                _put_key(t, _key(found), (*successors, key.id))
            return None
        others = self._metadata.get_many([(KEYS, one) for one in successors])
        known = [*([_key(found)] if found else []), *map(_key, others.values())]
        old = check_replaceable(key, known)
        ends_at = ends_at if old.expires_at is None else min(old.expires_at, ends_at)
        _put_key(t, msgspec.structs.replace(old, expires_at=ends_at), (*successors, key.id))
        return old

    def _update(
        self, t: Transaction, key_id: str, models: tuple[str, ...] | UnsetType, rate: _Rate, bounds: ClientBounds
    ) -> Key:
        found = _one_key(t, key_id)
        key = _key(found)
        owner = t.get(CLIENTS, _named(_owner(t, key)))
        if owner is None:
            raise InternalError("internal", "A key has no client.")
        self._change_client(t, _client(owner), rate, bounds)
        if isinstance(models, UnsetType) or models == key.models:
            return key
        changed = msgspec.structs.replace(key, models=models)
        _put_key(t, changed, _successors(found))
        t.bump()
        self._trail.record(t, AuditAction.KEY_CHANGE, f"key:{key_id}", key_facts(key), key_facts(changed))
        return changed

    def _end(self, t: Transaction, found: Sequence[Item], at: float) -> tuple[Key, ...]:
        active = [item for item in found if _key(item).revoked_at is None]
        before = list(map(_key, active))
        ended = tuple(msgspec.structs.replace(key, revoked_at=at) for key in before)
        for item, key in zip(active, ended, strict=True):
            _put_key(t, key, _successors(item))
        if ended:
            t.bump()
            self._trail.extend(t, [
                Change(AuditAction.KEY_REVOKE, f"key:{old.id}", key_facts(old), key_facts(new))
                for old, new in zip(before, ended, strict=True)
            ])  # fmt: skip
        return ended


def _given(rate: _Rate, bounds: ClientBounds) -> dict[str, Any]:
    """What is to be changed, by the names of Client's fields."""
    names = ("rate_count", "rate_period_s", "burst")
    given: dict[str, Any] = {name: value for name, value in zip(names, rate, strict=False) if value is not None}
    return given | {name: value for name, value in msgspec.structs.asdict(bounds).items() if value is not UNSET}


def _one_key(t: Transaction, key_id: str) -> Item:
    found = t.get(KEYS, key_id)
    if found is None:
        raise key_not_found(key_id)
    return found


def _owner(t: Transaction, key: Key) -> str:
    found = t.get(CLIENT_IDS, key.client_id)
    return "" if found is None else str(found["name"])


def _named(name: str) -> str:
    """A client's sort key; names may be empty, keys may not."""
    return f"={name}"


def _put_client(t: Transaction, client: Client) -> None:
    t.put(CLIENTS, _named(client.name), document=msgspec.json.encode(client).decode())


def _put_key(t: Transaction, key: Key, successors: Sequence[str]) -> None:
    document = msgspec.json.encode(key).decode()
    t.put(KEYS, key.id, document=document, successors=msgspec.json.encode(successors).decode())


def _client(item: Item) -> Client:
    return msgspec.json.decode(item["document"], type=Client)


def _key(item: Item) -> Key:
    return msgspec.json.decode(item["document"], type=Key)


def _successors(item: Item | None) -> tuple[str, ...]:
    return () if item is None else msgspec.json.decode(item["successors"], type=tuple[str, ...])
