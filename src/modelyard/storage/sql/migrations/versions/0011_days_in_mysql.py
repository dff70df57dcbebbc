"""On MySQL and MariaDB the prediction log in daily partitions, to which it is copied; elsewhere nothing.

Revision 0011. Programs that do not know the list of days that leave might add to one of them.
"""

from __future__ import annotations

import time

from alembic import op

from modelyard.storage.sql.dialects.partitions.mysql import partition

revision = "0011"
down_revision = "0010"
phase = "post"
databases = ("mysql", "mariadb")


def upgrade() -> None:
    """A day each from the oldest record on, and the days to come."""
    connection = op.get_bind()
    if connection.dialect.name in databases:
        partition(connection, time.time())


def downgrade() -> None:
    """One table again, to which all records are copied."""
    if op.get_bind().dialect.name in databases:
        op.execute("ALTER TABLE predictions REMOVE PARTITIONING")
