"""The audit log.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
phase = "pre"

_Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """An empty log: what happened before it is not known."""
    op.create_table(
        "audit_events",
        sa.Column("sequence", _Sequence, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at", "sequence"])
    op.create_index("ix_audit_events_action", "audit_events", ["action", "at", "sequence"])
    op.create_index("ix_audit_events_subject", "audit_events", ["subject", "at", "sequence", "actor", "action"])
    op.create_index("ix_audit_events_actor", "audit_events", ["actor", "at", "sequence"])
    op.create_index("ix_audit_events_actor_action", "audit_events", ["actor", "action", "at", "sequence"])


def downgrade() -> None:
    """The log is gone."""
    op.drop_table("audit_events")
