"""Legal holds, deletions by subject, leases, and when retention swept last.

Revision 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
phase = "pre"


def upgrade() -> None:
    """Nothing is held, nothing was erased, nothing was swept."""
    op.create_table(
        "legal_holds",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("model", sa.String(128)),
        sa.Column("endpoint", sa.String(128)),
        sa.Column("client", sa.String(255)),
        sa.Column("subject", sa.String(256)),
        sa.Column("since", sa.Float(53)),
        sa.Column("until", sa.Float(53)),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )
    op.create_index("ix_erasures_at", "erasures", ["at"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "retention_state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("swept_at", sa.Float(53), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_retention_state_one_row"),
    )


def downgrade() -> None:
    """Forgets them."""
    for name in ("retention_state", "leases", "erasures", "legal_holds"):
        op.drop_table(name)
