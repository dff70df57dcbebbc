"""When keys were used, and how much of their daily quotas clients used, in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import insert, select, update

from modelyard.auth.ports import QuotaUse
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

DAYS_KEPT = 4
"""A client's figures of so many days stay: a wall clock that jumps by a day and back finds what it left."""


class SqlUsageStore:
    """auth.ports.UsageStore over a database. Rows are few (keys, clients) and never deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_uses(self, used_at: Mapping[str, float]) -> None:
        """Notes when keys were last used, in one transaction."""
        if not used_at:
            return
        uses = schema.key_uses
        with self._database.write() as connection:
            known = set(connection.scalars(select(schema.api_keys.c.id).where(schema.api_keys.c.id.in_(used_at))))
            noted = set(connection.scalars(select(uses.c.key_id).where(uses.c.key_id.in_(known))))
            if new := [{"key_id": key_id, "used_at": used_at[key_id]} for key_id in sorted(known - noted)]:
                connection.execute(insert(uses), new)
            for key_id in sorted(noted):
                connection.execute(update(uses).where(uses.c.key_id == key_id).values(used_at=used_at[key_id]))

    def last_uses(self) -> dict[str, float]:
        """When each key was last used."""
        with self._database.read() as connection:
            return {row.key_id: row.used_at for row in connection.execute(select(schema.key_uses))}

    def keep_quotas(self, used: Sequence[QuotaUse]) -> None:
        """Stores what clients used, in one transaction."""
        if not used:
            return
        table = schema.quota_uses
        with self._database.write() as connection:
            ids = {use.client_id for use in used}
            rows = connection.execute(select(table).where(table.c.client_id.in_(ids)))
            kept = {(row.client_id, row.place): row for row in rows}
            known = set(connection.scalars(select(schema.clients.c.id).where(schema.clients.c.id.in_(ids))))
            for use in used:
                place = use.day % DAYS_KEPT
                before = kept.get((use.client_id, place))
                if use.client_id not in known or (before and before.day == use.day and before.used >= use.used):
                    continue
                values = {"day": use.day, "used": use.used}
                mine = (table.c.client_id == use.client_id) & (table.c.place == place)
                if before is None:
                    connection.execute(insert(table).values(client_id=use.client_id, place=place, **values))
                else:
                    connection.execute(update(table).where(mine).values(values))

    def quotas(self) -> tuple[QuotaUse, ...]:
        """All that was kept."""
        table = schema.quota_uses
        with self._database.read() as connection:
            return tuple(QuotaUse(row.client_id, row.day, row.used) for row in connection.execute(select(table)))
