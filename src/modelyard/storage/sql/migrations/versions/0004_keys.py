"""Clients' quotas, concurrency and models; rotated keys; when keys were used.

Revision 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
phase = "pre"

_CLIENT_BOUNDS = ("quota_per_day", "concurrency", "models")


def upgrade() -> None:
    """Clients that exist have no bounds of their own; nothing was rotated, no use is known."""
    op.add_column("clients", sa.Column("quota_per_day", sa.BigInteger))
    op.add_column("clients", sa.Column("concurrency", sa.Integer))
    op.add_column("clients", sa.Column("models", sa.Text, nullable=False, server_default='["*"]'))
    op.add_column("api_keys", sa.Column("replaces", sa.String(64)))
    op.create_index("ix_api_keys_replaces", "api_keys", ["replaces"])
    op.create_table(
        "key_uses",
        sa.Column("key_id", sa.String(64), sa.ForeignKey("api_keys.id", name="fk_key_uses_key"), primary_key=True),
        sa.Column("used_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "quota_uses",
        sa.Column(
            "client_id", sa.String(64), sa.ForeignKey("clients.id", name="fk_quota_uses_client"), primary_key=True
        ),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("day", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Forgets them."""
    op.drop_table("quota_uses")
    op.drop_table("key_uses")
    op.drop_index("ix_api_keys_replaces", "api_keys")
    op.drop_column("api_keys", "replaces")
    for name in _CLIENT_BOUNDS:
        op.drop_column("clients", name)
