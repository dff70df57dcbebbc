"""Keys and clients in the database."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, func, insert, select, update

from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.ports import KEEP, Client, ClientBounds, Key, KeySnapshot
from modelyard.auth.scopes import Rate
from modelyard.storage.audit_row import client_facts, key_facts
from modelyard.storage.refusals import check_replaceable, key_not_found, no_slot_left
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
        self,
        name: str,
        rate_count: int | None,
        rate_period_s: float | None,
        burst: int | None,
        bounds: ClientBounds = KEEP,
    ) -> Client:
        """The client of this name, made or changed; UnavailableError when no slot is left."""
        rate = (rate_count, rate_period_s, burst)
        with self._database.write() as connection:
            found = connection.execute(select(schema.clients).where(schema.clients.c.name == name)).one_or_none()
            if found is None:
                return self._new_client(connection, name, rate, bounds)
            return self._change_client(connection, _client(found), rate, bounds)

    def _new_client(
        self, connection: Connection, name: str, rate: tuple[float | None, ...], bounds: ClientBounds
    ) -> Client:
        count, period_s, burst = (
            own if own is not None else default for own, default in zip(rate, self._default_rate, strict=True)
        )
        # Clients are never deleted, so the next slot is dense and no slot is ever given twice.
        slot = connection.execute(select(func.coalesce(func.max(schema.clients.c.slot) + 1, 0))).scalar_one()
        if slot >= self._max_clients:
            raise no_slot_left(self._max_clients)
        client_id = f"c{self._randomness(CLIENT_ID_BYTES).hex()}"
        client = Client(client_id, name, slot, int(count), float(period_s), int(burst))
        client = msgspec.structs.replace(client, **_given(rate=(), bounds=bounds))
        connection.execute(insert(schema.clients).values(_client_row(msgspec.structs.asdict(client))))
        changes.bump(connection)
        self._trail.record(connection, AuditAction.CLIENT_CREATE, f"client:{name}", None, client_facts(client))
        return client

    def add(self, key: Key, replaced_ends_at: float | None = None) -> None:
        """Stores a new key, and ends the one that it replaces; InternalError for an unknown client or a key that is
        there (the schema refuses both)."""
        values = msgspec.structs.asdict(key) | {"scopes": _text(key.scopes), "models": _text(key.models)}
        with self._database.write() as connection:
            old = None
            if key.replaces is not None and replaced_ends_at is not None:
                old = _end_replaced(connection, key, replaced_ends_at)
            connection.execute(insert(schema.api_keys).values(values))
            changes.bump(connection)
            if old is None:
                self._trail.record(connection, AuditAction.KEY_CREATE, f"key:{key.id}", None, key_facts(key))
            else:
                facts = key_facts(old), {"replaced_by": key.id, **key_facts(key)}
                self._trail.record(connection, AuditAction.KEY_ROTATE, f"key:{old.id}", *facts)

    def update(
        self,
        key_id: str,
        *,
        models: tuple[str, ...] | UnsetType = UNSET,
        rate: Rate | None = None,
        bounds: ClientBounds = KEEP,
    ) -> Key:
        """Changes a key and its client in one transaction."""
        with self._database.write() as connection:
            key = _one_key(connection, key_id)
            owner = connection.execute(select(schema.clients).where(schema.clients.c.id == key.client_id)).one()
            self._change_client(connection, _client(owner), rate or (), bounds)
            if isinstance(models, UnsetType) or models == key.models:
                return key
            mine = schema.api_keys.c.id == key_id
            connection.execute(update(schema.api_keys).where(mine).values(models=_text(models)))
            changes.bump(connection)
            changed = msgspec.structs.replace(key, models=models)
            self._trail.record(connection, AuditAction.KEY_CHANGE, f"key:{key_id}", key_facts(key), key_facts(changed))
            return changed

    def revoke(self, key_id: str, at: float) -> Key:
        """Marks the key revoked; the first time of revocation stays."""
        with self._database.write() as connection:
            key = _one_key(connection, key_id)
            ended = self._end(connection, (key,), at)
            return ended[0] if ended else key

    def revoke_all(self, key_ids: Sequence[str], at: float) -> tuple[Key, ...]:
        """Marks these keys revoked, in one transaction; those that it changed."""
        with self._database.write() as connection:
            found = (_find_key(connection, key_id) for key_id in dict.fromkeys(key_ids))
            return self._end(connection, [key for key in found if key is not None], at)

    def _end(self, connection: Connection, keys: Sequence[Key], at: float) -> tuple[Key, ...]:
        before = [key for key in keys if key.revoked_at is None]
        ended = tuple(msgspec.structs.replace(key, revoked_at=at) for key in before)
        for key in ended:
            connection.execute(update(schema.api_keys).where(schema.api_keys.c.id == key.id).values(revoked_at=at))
        if ended:
            changes.bump(connection)
            self._trail.extend(connection, [
                Change(AuditAction.KEY_REVOKE, f"key:{old.id}", key_facts(old), key_facts(new))
                for old, new in zip(before, ended, strict=True)
            ])  # fmt: skip
        return ended

    def _change_client(
        self, connection: Connection, client: Client, rate: tuple[float | None, ...], bounds: ClientBounds
    ) -> Client:
        given = _given(rate, bounds)
        changed = msgspec.structs.replace(client, **given)
        if changed != client:
            mine = schema.clients.c.id == client.id
            connection.execute(update(schema.clients).where(mine).values(_client_row(given)))
            changes.bump(connection)
            facts = client_facts(client), client_facts(changed)
            self._trail.record(connection, AuditAction.CLIENT_CHANGE, f"client:{client.name}", *facts)
        return changed

    def version(self) -> int:
        """The snapshot version now: one row by its primary key."""
        with self._database.read() as connection:
            return changes.current(connection)


def _given(rate: tuple[float | None, ...], bounds: ClientBounds) -> dict[str, Any]:
    """What is to be changed, by the names of Client's fields."""
    names = ("rate_count", "rate_period_s", "burst")
    given: dict[str, Any] = {name: value for name, value in zip(names, rate, strict=False) if value is not None}
    return given | {name: value for name, value in msgspec.structs.asdict(bounds).items() if value is not UNSET}


def _end_replaced(connection: Connection, key: Key, ends_at: float) -> Key:
    """Ends the key that the new one replaces; as it was before."""
    columns = schema.api_keys.c
    rows = connection.execute(
        select(schema.api_keys).where((columns.id == key.replaces) | (columns.replaces == key.replaces))
    )
    old = check_replaceable(key, map(_key, rows))
    ends_at = ends_at if old.expires_at is None else min(old.expires_at, ends_at)
    connection.execute(update(schema.api_keys).where(columns.id == old.id).values(expires_at=ends_at))
    return old


def _find_key(connection: Connection, key_id: str) -> Key | None:
    found = connection.execute(select(schema.api_keys).where(schema.api_keys.c.id == key_id)).one_or_none()
    return None if found is None else _key(found)


def _one_key(connection: Connection, key_id: str) -> Key:
    key = _find_key(connection, key_id)
    if key is None:
        raise key_not_found(key_id)
    return key


def _text(values: _TEXTS) -> str:
    return msgspec.json.encode(values).decode()


def _client_row(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"models": _text(values["models"])} if "models" in values else values


def _client(row: Row[Any]) -> Client:
    values = dict(row._mapping)
    values["models"] = msgspec.json.decode(values["models"], type=_TEXTS)
    return Client(**values)


def _key(row: Row[Any]) -> Key:
    values = dict(row._mapping)
    values["scopes"] = msgspec.json.decode(values["scopes"], type=_TEXTS)
    values["models"] = msgspec.json.decode(values["models"], type=_TEXTS)
    return Key(**values)
