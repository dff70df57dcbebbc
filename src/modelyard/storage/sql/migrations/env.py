"""How Alembic reaches the database: always over the connection, and inside the transaction, of its caller."""

from __future__ import annotations

from alembic import context

from modelyard.storage.sql import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
context.run_migrations()
