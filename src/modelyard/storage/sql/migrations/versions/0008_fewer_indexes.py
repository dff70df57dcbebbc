"""Fewer indexes of the prediction log; releases before work on, and list by a model or a version alone more slowly. On
SQLite the one by time holds what figures are counted from, as bodies lie in the rows there.

Revision 0008. The index by model and version serves what they served; PostgreSQL keeps the one by model
(docs/decisions/0047). Nothing goes that a program needs to be right, so it does not wait until the old ones have
stopped.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
phase = "pre"

_AT = ("at", "status", "endpoint")
_COUNTED = ("model", "version", "client", "total_us", "request_bytes", "answer_bytes", "rows")


def upgrade() -> None:
    """Each of them cost every record that is stored."""
    if op.get_bind().dialect.name != "postgresql":
        op.drop_index("ix_predictions_model", "predictions")
    op.drop_index("ix_predictions_version", "predictions")
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_predictions_figures", "predictions", [*_AT, *_COUNTED])
        op.drop_index("ix_predictions_at", "predictions")


def downgrade() -> None:
    """Makes them anew, over all records."""
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_predictions_at", "predictions", [*_AT])
        op.drop_index("ix_predictions_figures", "predictions")
    if op.get_bind().dialect.name != "postgresql":
        op.create_index("ix_predictions_model", "predictions", ["model", "at", "version", "status"])
    op.create_index("ix_predictions_version", "predictions", ["version", "at", "status"])
