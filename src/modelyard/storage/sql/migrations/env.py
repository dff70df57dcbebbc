"""How Alembic reaches the database: always over the connection, and inside the transaction, of its caller."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import String, Table, event

from modelyard.storage.sql import schema, upgrade

connection = context.config.attributes["connection"]


def _order_by_bytes(table: Table, _connection: Any, **_: Any) -> None:
    """Text compares by its bytes, as SQLite and Python do, whatever the language of the server: pages are cut by such
    comparisons, and their indexes are smaller and faster."""
    for column in table.columns:
        if isinstance(column.type, String):
            column.type.collation = "C"


if connection.dialect.name == "postgresql":
    event.listen(Table, "before_create", _order_by_bytes)
try:
    upgrade.adopt(connection)
    context.configure(connection=connection, target_metadata=schema.metadata, version_table=upgrade.APPLIED.name)
    context.run_migrations()
finally:
    if connection.dialect.name == "postgresql":
        event.remove(Table, "before_create", _order_by_bytes)
