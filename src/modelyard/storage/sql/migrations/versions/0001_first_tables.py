"""The first tables: clients and keys, models and endpoints, the prediction log.

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from modelyard.storage.sql.dialects import has_partial_indexes, insert_new, prediction_log_view

revision = "0001"
down_revision = None
phase = "pre"

_JOURNAL = ("spool_positions", "quarantined_predictions", "predictions")
_TRAFFIC = ("traffic", "endpoints")
_MODELS = ("versions", "models", "manifests")
_KEYS = ("api_keys", "clients", "snapshot")


def upgrade() -> None:
    """From nothing."""
    _create_keys()
    _create_models()
    _create_traffic()
    _create_predictions()
    _create_journal()
    op.get_bind().exec_driver_sql(prediction_log_view(op.get_bind(), 1))


def downgrade() -> None:
    """To nothing."""
    op.execute("DROP VIEW prediction_log")
    for table in (*_JOURNAL, *_TRAFFIC, *_MODELS, *_KEYS):
        op.drop_table(table)


def _create_keys() -> None:
    snapshot = op.create_table(
        "snapshot",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_snapshot_one_row"),
    )
    op.execute(insert_new(op.get_bind(), snapshot).values(id=1, version=0))
    op.create_table(
        "clients",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False, unique=True),
        sa.Column("slot", sa.Integer, nullable=False, unique=True),
        sa.Column("rate_count", sa.BigInteger, nullable=False),
        sa.Column("rate_period_s", sa.Float(53), nullable=False),
        sa.Column("burst", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("client_id", sa.String(64), sa.ForeignKey("clients.id", name="fk_api_keys_client"), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("revoked_at", sa.Float(53)),
    )
    op.create_index("ix_api_keys_client_id", "api_keys", ["client_id"])


def _create_models() -> None:
    op.create_table(
        "manifests",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table("models", sa.Column("name", sa.String(128), primary_key=True))
    op.create_table(
        "versions",
        sa.Column("model", sa.String(128), sa.ForeignKey("models.name", name="fk_versions_model"), primary_key=True),
        sa.Column("version", sa.String(128), primary_key=True),
        sa.Column(
            "digest", sa.String(64), sa.ForeignKey("manifests.digest", name="fk_versions_manifest"), nullable=False
        ),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    )


def _create_traffic() -> None:
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), sa.ForeignKey("models.name", name="fk_endpoints_model"), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "traffic",
        sa.Column(
            "endpoint", sa.String(128), sa.ForeignKey("endpoints.name", name="fk_traffic_endpoint"), primary_key=True
        ),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("share", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["versions.model", "versions.version"], name="fk_traffic_version"
        ),
        sa.UniqueConstraint("endpoint", "version", name="uq_traffic_version"),
        sa.CheckConstraint("share BETWEEN 0 AND 100", name="ck_traffic_share"),
    )


def _create_predictions() -> None:
    op.create_table("predictions", *_identity_columns(), *_payload_columns())
    op.create_index("ix_predictions_at", "predictions", ["at", "status", "endpoint"])
    op.create_index("ix_predictions_model", "predictions", ["model", "at", "version", "status"])
    op.create_index("ix_predictions_client", "predictions", ["client", "at", "status"])
    if has_partial_indexes(op.get_bind()):  # elsewhere ix_predictions_at serves
        failed = sa.text("status >= 400")
        op.create_index(
            "ix_predictions_failed", "predictions", ["at", "status"], sqlite_where=failed, postgresql_where=failed
        )


def _identity_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("client", sa.String(255), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("endpoint", sa.String(128), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("arm", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
    ]


def _payload_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("outputs", sa.Text, nullable=False),
        sa.Column("queue_us", sa.BigInteger, nullable=False),
        sa.Column("compute_us", sa.BigInteger, nullable=False),
        sa.Column("total_us", sa.BigInteger, nullable=False),
        sa.Column("request_bytes", sa.BigInteger, nullable=False),
        sa.Column("answer_bytes", sa.BigInteger, nullable=False),
        sa.Column("flag", sa.String(255), nullable=False),
        sa.Column("surface", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("manifest", sa.String(64), nullable=False),
        sa.Column("redaction", sa.String(255), nullable=False),
        sa.Column("payload_sha256", sa.String(64), nullable=False),
        sa.Column("raw_header", sa.LargeBinary),
        sa.Column("raw", sa.LargeBinary),
    ]


def _create_journal() -> None:
    op.create_table(
        "quarantined_predictions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("payload_sha256", sa.String(64), primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "spool_positions",
        sa.Column("file", sa.String(255), primary_key=True),
        sa.Column("offset", sa.BigInteger, nullable=False),
    )
