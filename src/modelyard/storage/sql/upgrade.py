"""Brings a database to the newest schema, safely when several processes start at once.

Alembic takes 0.1 s and more to import, which a start that has nothing to migrate does not pay: the stored revision
is read first, and only a difference imports it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, select, text

from modelyard.core.errors import SettingsError
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

MIGRATIONS = Path(__file__).with_name("migrations")
COPY_LEASE = "copy"
"""The lease that a copy holds in its target until all is there."""


def upgrade_to_head(database: Database, whole: bool = True) -> None:
    """Runs the migrations that are missing, all in one transaction, one process after the other.

    SettingsError("data_folder_unusable") if the database was written by a newer program, ("copy_unfinished") if a copy
    into it did not end, unless `whole` is False.
    """
    with database.read() as connection:
        if stored_revision(connection) == schema.HEAD:
            if whole:
                _check_whole(connection)
            return
    with database.upgrade() as connection:
        revision = stored_revision(connection)  # another process may have been quicker
        if revision != schema.HEAD:
            _migrate(connection, revision)


def check_current(database: Database) -> None:
    """SettingsError("schema_outdated") unless the database has the newest schema; nothing is changed in it."""
    with database.read() as connection:
        revision = stored_revision(connection)
    if revision != schema.HEAD:
        raise SettingsError(
            "schema_outdated",
            f"The database has schema {revision or 'none'}, this program works with {schema.HEAD}.",
            field="database.url",
            expected=schema.HEAD,
            got=revision,
        )


def stored_revision(connection: Connection) -> str | None:
    """The revision that the database says it has, None if it is empty."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _check_whole(connection: Connection) -> None:
    lease = schema.leases.c
    if connection.scalar(select(lease.holder).where(lease.name == COPY_LEASE)):
        raise SettingsError(
            "copy_unfinished",
            "The database is the target of a `modelyard copy` that has not ended: run it again, with the same --from.",
            field="database.url",
        )


def _migrate(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            "data_folder_unusable",
            f"The database has schema {revision}, this program knows up to {schema.HEAD}: a newer one wrote it.",
            field="database.url",
            expected=schema.HEAD,
            got=revision,
        ) from error
