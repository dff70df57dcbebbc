"""Outcomes, an index for each filter of the log, and quarantined records that can be listed.

Revision 0003, after 0002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

from modelyard.storage.sql.dialects import has_partial_indexes

revision = "0003"
down_revision = "0002"
phase = "pre"

_QUARANTINED = "quarantined_predictions"
_PLACES = {"at": 2, "client": 4, "endpoint": 6, "model": 7, "version": 8, "status": 10}
"""Where a packed record of revision 0001 has what becomes a column: its header, then the row in the order of then."""
_RAW = 27


def upgrade() -> None:
    """From revision 0002."""
    _create_outcomes()
    op.create_index("ix_predictions_endpoint", "predictions", ["endpoint", "at", "status"])
    op.create_index("ix_predictions_version", "predictions", ["version", "at", "status"])
    op.create_index("ix_predictions_model_version", "predictions", ["model", "version", "at", "status"])
    _partial("ix_predictions_subject", "predictions", ["subject", "at"], "subject > ''")
    _partial("ix_predictions_flagged", "predictions", ["at"], "flag > '' AND flag != 'request_refused'", ["flag", "at"])
    _replace_quarantined(_upgraded, _old_columns() + _new_columns())
    op.create_index("ix_quarantined_predictions_at", _QUARANTINED, ["at"])


def downgrade() -> None:
    """To revision 0002. Outcomes are lost."""
    op.drop_index("ix_quarantined_predictions_at", _QUARANTINED)
    _replace_quarantined(lambda row: row, _old_columns())
    for name in ("endpoint", "version", "model_version", "subject", "flagged"):
        op.drop_index(f"ix_predictions_{name}", "predictions")
    op.drop_table("outcomes")


def _create_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("prediction_id", sa.String(64), primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("value_key", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("current", sa.Integer, nullable=False),
        sa.Column("prediction_at", sa.BigInteger),
    )
    current = "current = 1 AND prediction_at IS NOT NULL"
    place = ["prediction_at", "prediction_id", "item"]
    _partial("ix_outcomes_value", "outcomes", ["value_key", *place], current)
    _partial("ix_outcomes_at", "outcomes", place, current)
    _partial("ix_outcomes_waiting", "outcomes", ["prediction_id"], "prediction_at IS NULL", [])  # ix_outcomes_at


def _partial(name: str, table: str, columns: list[str], where: str, whole: list[str] | None = None) -> None:
    """An index over the rows that `where` names; where that cannot be, over `whole`, or none if that is empty."""
    if not has_partial_indexes(op.get_bind()):
        columns = columns if whole is None else whole
    if columns:
        op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _old_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("payload_sha256", sa.String(64), primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
    ]


def _new_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("raw_bytes", sa.BigInteger, nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("endpoint", sa.String(128), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
    ]


def _replace_quarantined(change: Any, columns: Sequence[sa.Column[Any]]) -> None:
    """A new table with the old one's rows: there are few, if any, and no database can add such columns alike."""
    names = ("id", "payload_sha256", "record")
    old = sa.table(_QUARANTINED, *(sa.column(name) for name in names))
    # Where each statement commits itself, an upgrade may have been cut off behind the next one: before the first use.
    there = sa.inspect(op.get_bind()).has_table(_QUARANTINED)
    rows = [dict(zip(names, row, strict=True)) for row in op.get_bind().execute(sa.select(*old.c))] if there else []
    if there:
        op.drop_table(_QUARANTINED)
    made = op.create_table(_QUARANTINED, *columns)
    if rows:
        op.bulk_insert(made, [change(row) for row in rows])


def _upgraded(row: dict[str, Any]) -> dict[str, Any]:
    packed = msgspec.msgpack.decode(row["record"])
    known = {name: packed[place] for name, place in _PLACES.items()}
    return {**row, **known, "reason": "id_taken", "raw_bytes": len(packed[_RAW] or b"")}
