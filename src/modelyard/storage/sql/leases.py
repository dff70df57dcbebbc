"""Leases in the database, by its own clock."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, insert, select, update

from modelyard.core.lease import Fence
from modelyard.storage import refusals
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

_L = schema.leases.c


class SqlLeases:
    """core.lease.Leases over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, ttl_s: float) -> Fence | None:
        """The lease, if nobody else holds it now."""
        with self._database.write() as connection:
            now = self._now(connection)
            row = connection.execute(select(_L.holder, _L.token, _L.expires_at).where(_L.name == name)).one_or_none()
            if row is None:
                values = {"name": name, "holder": holder, "token": 1, "expires_at": now + ttl_s}
                connection.execute(insert(schema.leases).values(**values))
                return Fence(name, 1)
            if row.holder not in ("", holder) and row.expires_at > now:
                return None
            taken = {"holder": holder, "token": row.token + 1, "expires_at": now + ttl_s}
            connection.execute(update(schema.leases).where(_L.name == name).values(**taken))
            return Fence(name, row.token + 1)

    def renew(self, fence: Fence, ttl_s: float) -> None:
        """Holds it for so long from now on."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            held = update(schema.leases).where(_L.name == fence.name)
            connection.execute(held.values(expires_at=self._now(connection) + ttl_s))

    def release(self, fence: Fence) -> None:
        """Gives it back."""
        with self._database.write() as connection:
            held = update(schema.leases).where(_mine(fence))
            connection.execute(held.values(holder="", expires_at=0.0))

    def _now(self, connection: Connection) -> float:
        """The database's time, UNIX seconds."""
        return float(connection.execute(select(self._database.dialect.now)).scalar_one())


def check_fence(connection: Connection, fence: Fence | None) -> None:
    """In the transaction of a write: ConflictError("lease_lost") unless the token is still the latest."""
    if fence is None:
        return
    if connection.execute(select(_L.token).where(_mine(fence), _L.holder != "")).first() is None:
        raise refusals.lease_lost(fence)


def _mine(fence: Fence) -> ColumnElement[bool]:
    return and_(_L.name == fence.name, _L.token == fence.token)
