"""Brings a database to the newest schema, safely when several processes start at once.

Alembic takes 0.1 s and more to import, which a start that has nothing to migrate does not pay: the stored revision
is read first, and only a difference imports it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from modelyard.core.errors import SettingsError
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database

MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade_to_head(database: Database) -> None:
    """Runs the migrations that are missing, all in one transaction, one process after the other.

    SettingsError("data_folder_unusable") if the database was written by a newer program.
    """
    with database.read() as connection:
        if stored_revision(connection) == schema.HEAD:
            return
    with database.upgrade() as connection:
        revision = stored_revision(connection)  # another process may have been quicker
        if revision != schema.HEAD:
            _migrate(connection, revision)


def stored_revision(connection: Connection) -> str | None:
    """The revision that the database says it has, None if it is empty."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


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
