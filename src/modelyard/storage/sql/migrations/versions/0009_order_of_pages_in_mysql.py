"""On MySQL and MariaDB the log's indexes in the order of pages, so that a page sorts nothing; elsewhere nothing.

Revision 0009. The other databases read along an index by time and sort what shares a microsecond; these two sort all
that matches, unless the index has the id behind the time.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
phase = "pre"

_LEADING = {"at": [], "client": ["client"], "endpoint": ["endpoint"], "model_version": ["model", "version"]}
_RIDING = {"at": ["status", "endpoint"]}


def upgrade() -> None:
    """Every key has the id in it anyway: in another place it costs nothing."""
    _make_anew(["at", "id"])


def downgrade() -> None:
    """As they were."""
    _make_anew(["at"])


def _make_anew(place: list[str]) -> None:
    if op.get_bind().dialect.name not in ("mysql", "mariadb"):
        return
    for name, leading in _LEADING.items():
        op.drop_index(f"ix_predictions_{name}", "predictions")
        op.create_index(f"ix_predictions_{name}", "predictions", [*leading, *place, *_RIDING.get(name, ["status"])])
