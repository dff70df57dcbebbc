"""The snapshot version: one row that every change of keys, models or traffic bumps in its own transaction."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from modelyard.storage.sql import schema


def bump(connection: Connection) -> None:
    """Says that this transaction changed something."""
    connection.execute(update(schema.snapshot).values(version=schema.snapshot.c.version + 1))


def current(connection: Connection) -> int:
    """The version that this transaction sees."""
    return int(connection.execute(select(schema.snapshot.c.version)).scalar_one())
