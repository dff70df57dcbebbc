"""Rollups of the prediction log, and views with stable names over them and the log; all that is in it waits to be
rolled up.

Revision 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
phase = "pre"

_MINUTE_US = 60_000_000
_MYSQL = "date_format(date_add('1970-01-01', INTERVAL {0} SECOND), '%Y-%m-%dT%H:%i:%sZ')"
_TIME = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%SZ', {0}, 'unixepoch')",
    "postgresql": "to_char(to_timestamp({0}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}
"""UNIX seconds as RFC 3339 in UTC."""
_SECOND = {"sqlite": "{0} / 1000000", "postgresql": "div({0}, 1000000)", "mysql": "{0} DIV 1000000",
           "mariadb": "{0} DIV 1000000"}  # fmt: skip
_FIGURES = (
    "requests, items, answered, client_errors, server_errors, total_us * 1.0 / NULLIF(answered, 0) AS mean_us, "
    "p50_us, p90_us, p99_us, max_us, request_bytes, answer_bytes"
)
_VIEWS = {
    "v_requests_hourly": "SELECT {start} AS time, endpoint, model, version, client, {figures} FROM rollups "
    "WHERE grain = 3600 AND client <> '*'",
    "v_requests_daily": "SELECT {start} AS time, endpoint, model, version, client, {figures} FROM rollups "
    "WHERE grain = 86400 AND client <> '*'",
    "v_versions_hourly": "SELECT {start} AS time, endpoint, model, version, {figures} FROM rollups "
    "WHERE grain = 3600 AND client = '*'",
    "v_versions_daily": "SELECT {start} AS time, endpoint, model, version, {figures} FROM rollups "
    "WHERE grain = 86400 AND client = '*'",
    "v_failures": "SELECT {at} AS time, predictions.id, client, endpoint, model, version, status, code, total_us "
    "FROM predictions WHERE status >= 400",
    "v_outcomes": "SELECT {prediction_at} AS time, prediction_id, item, value, {outcome_at} AS outcome_time, revision, "
    "client FROM outcomes WHERE outcomes.current = 1 AND prediction_at IS NOT NULL",
}
"""Names and meanings stay."""


def upgrade() -> None:
    """Nothing is rolled up yet."""
    op.create_table(
        "rollups",
        sa.Column("grain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("client", sa.String(255), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("endpoint", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("version", sa.String(128), primary_key=True),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in (
                "requests", "client_errors", "server_errors", "items", "answered", "total_us", "request_bytes",
                "answer_bytes", "max_us",
            )
        ),
        sa.Column("latency", sa.LargeBinary, nullable=False),
        *(sa.Column(name, sa.Float(53)) for name in ("p50_us", "p90_us", "p99_us")),
    )  # fmt: skip
    op.create_index("ix_rollups_start", "rollups", ["grain", "start"])
    op.create_table(
        "score_rollups",
        sa.Column("grain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("version", sa.String(128), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("output", sa.String(255), primary_key=True),
        sa.Column("scores", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_score_rollups_start", "score_rollups", ["grain", "start"])
    pending = op.create_table(
        "pending_rollups",
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("taken", sa.Integer, primary_key=True, autoincrement=False),
    )
    minute = (sa.column("at", sa.BigInteger) // _MINUTE_US) * 60
    every = sa.select(minute, sa.literal(0)).select_from(sa.table("predictions")).distinct()
    op.execute(pending.insert().from_select(["start", "taken"], every))

    for statement in _views(op.get_bind().dialect.name):
        op.execute(statement)


def _views(dialect: str) -> list[str]:
    time, second = _TIME[dialect], _SECOND[dialect]
    parts = {
        "start": time.format("start"),
        "at": time.format(second.format("predictions.at")),
        "prediction_at": time.format(second.format("prediction_at")),
        "outcome_at": time.format(second.format("outcomes.at")),
        "figures": _FIGURES,
    }
    return [f"CREATE VIEW {name} AS {query.format(**parts)}" for name, query in _VIEWS.items()]


def downgrade() -> None:
    """Forgets them; the log has all that they say."""
    for statement in (f"DROP VIEW {name}" for name in _VIEWS):
        op.execute(statement)
    for name in ("pending_rollups", "score_rollups", "rollups"):
        op.drop_table(name)
