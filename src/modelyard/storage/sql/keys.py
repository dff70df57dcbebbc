"""Keys and clients in the database."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.ports import Client, Key, KeySnapshot
from modelyard.storage.audit_row import client_facts, key_facts
from modelyard.storage.refusals import key_not_found, no_slot_left
from modelyard.storage.sql import changes, schema
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database

CLIENT_ID_BYTES = 8
_TEXTS = tuple[str, ...]


class SqlKeyStore:
    """auth.ports.KeyStore over a database. `default_rate` is (count, period in seconds, burst) of a new client;
    `max_clients` bounds the slots; client ids are drawn from `randomness`. Changes are written down in `trail`."""

    def __init__(
        self,
        database: Database,
        trail: AuditTrail,
        default_rate: tuple[int, float, int],
        max_clients: int,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._trail = trail
        self._default_rate = default_rate
        self._max_clients = max_clients
        self._randomness = randomness

    def snapshot(self) -> KeySnapshot:
        """All clients and keys, of one moment."""
        with self._database.read() as connection:
            return KeySnapshot(
                version=changes.current(connection),
                clients=tuple(map(_client, connection.execute(select(schema.clients).order_by(schema.clients.c.slot)))),
                keys=tuple(map(_key, connection.execute(select(schema.api_keys).order_by(schema.api_keys.c.id)))),
            )

    def ensure_client(
        self, name: str, rate_count: int | None, rate_period_s: float | None, burst: int | None
    ) -> Client:
        """The client of this name, made or changed; UnavailableError when no slot is left."""
        wanted = (rate_count, rate_period_s, burst)
        with self._database.write() as connection:
            found = connection.execute(select(schema.clients).where(schema.clients.c.name == name)).one_or_none()
            if found is None:
                return self._new_client(connection, name, wanted)
            before = _client(found)
            after = _changed_client(connection, before, wanted)
            if after != before:
                facts = client_facts(before), client_facts(after)
                self._trail.record(connection, AuditAction.CLIENT_CHANGE, f"client:{name}", *facts)
            return after

    def _new_client(self, connection: Connection, name: str, wanted: tuple[float | None, ...]) -> Client:
        count, period_s, burst = (
            own if own is not None else default for own, default in zip(wanted, self._default_rate, strict=True)
        )
        # Clients are never deleted, so the next slot is dense and no slot is ever given twice.
        slot = connection.execute(select(func.coalesce(func.max(schema.clients.c.slot) + 1, 0))).scalar_one()
        if slot >= self._max_clients:
            raise no_slot_left(self._max_clients)
        client_id = f"c{self._randomness(CLIENT_ID_BYTES).hex()}"
        client = Client(client_id, name, slot, int(count), float(period_s), int(burst))
        connection.execute(insert(schema.clients).values(msgspec.structs.asdict(client)))
        changes.bump(connection)
        self._trail.record(connection, AuditAction.CLIENT_CREATE, f"client:{name}", None, client_facts(client))
        return client

    def add(self, key: Key) -> None:
        """Stores a new key; InternalError for an unknown client or a key that is there (the schema refuses both)."""
        values = msgspec.structs.asdict(key) | {"scopes": _text(key.scopes), "models": _text(key.models)}
        with self._database.write() as connection:
            connection.execute(insert(schema.api_keys).values(values))
            changes.bump(connection)
            self._trail.record(connection, AuditAction.KEY_CREATE, f"key:{key.id}", None, key_facts(key))

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked; the first time of revocation stays."""
        mine = schema.api_keys.c.id == key_id
        with self._database.write() as connection:
            found = connection.execute(select(schema.api_keys).where(mine)).one_or_none()
            if found is None:
                raise key_not_found(key_id)
            key = _key(found)
            if key.revoked_at is None:
                before, key = key, msgspec.structs.replace(key, revoked_at=at)
                connection.execute(update(schema.api_keys).where(mine).values(revoked_at=at))
                changes.bump(connection)
                facts = key_facts(before), key_facts(key)
                self._trail.record(connection, AuditAction.KEY_REVOKE, f"key:{key_id}", *facts)
            return key

    def version(self) -> int:
        """The snapshot version now: one row by its primary key."""
        with self._database.read() as connection:
            return changes.current(connection)


def _changed_client(connection: Connection, client: Client, wanted: tuple[float | None, ...]) -> Client:
    names = ("rate_count", "rate_period_s", "burst")
    given = {name: value for name, value in zip(names, wanted, strict=True) if value is not None}
    changed = msgspec.structs.replace(client, **given)
    if changed != client:
        connection.execute(update(schema.clients).where(schema.clients.c.id == client.id).values(given))
        changes.bump(connection)
    return changed


def _text(values: _TEXTS) -> str:
    return msgspec.json.encode(values).decode()


def _client(row: Row[Any]) -> Client:
    return Client(**row._mapping)


def _key(row: Row[Any]) -> Key:
    values = dict(row._mapping)
    values["scopes"] = msgspec.json.decode(values["scopes"], type=_TEXTS)
    values["models"] = msgspec.json.decode(values["models"], type=_TEXTS)
    return Key(**values)
