"""Fewer indexes of the prediction log; releases before work on, and list by a model or a version alone more slowly.

Revision 0008. The index by model and version serves what they served; PostgreSQL keeps the one by model
(docs/decisions/0047). Nothing goes that a program needs to be right, so it does not wait until the old ones have
stopped.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
phase = "pre"


def upgrade() -> None:
    """Each of them cost every record that is stored."""
    if op.get_bind().dialect.name != "postgresql":
        op.drop_index("ix_predictions_model", "predictions")
    op.drop_index("ix_predictions_version", "predictions")


def downgrade() -> None:
    """Makes them anew, over all records."""
    if op.get_bind().dialect.name != "postgresql":
        op.create_index("ix_predictions_model", "predictions", ["model", "at", "version", "status"])
    op.create_index("ix_predictions_version", "predictions", ["version", "at", "status"])
