"""On MySQL and MariaDB the list of days that leave the prediction log; elsewhere nothing.

Revision 0010.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
phase = "pre"
databases = ("mysql", "mariadb")


def upgrade() -> None:
    """None leaves yet."""
    if op.get_bind().dialect.name in databases:
        op.create_table("leaving_days", sa.Column("name", sa.String(64), primary_key=True))


def downgrade() -> None:
    """None leaves any more."""
    if op.get_bind().dialect.name in databases:
        op.drop_table("leaving_days")
