"""The tables as the adapters see them; `migrations/` is how a database gets there (a test compares both).

Times of people's doing (keys, versions) are UNIX seconds; times of predictions are UNIX microseconds in an integer,
which orders exactly and compares fast.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
)

HEAD = "0011"
"""The newest revision under `migrations/versions`; a database that stores it needs no migration."""

metadata = MetaData()

snapshot = Table(
    "snapshot",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="ck_snapshot_one_row"),
)

clients = Table(
    "clients",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("slot", Integer, nullable=False, unique=True),
    Column("rate_count", BigInteger, nullable=False),
    Column("rate_period_s", Float(53), nullable=False),
    Column("burst", BigInteger, nullable=False),
    Column("quota_per_day", BigInteger),
    Column("concurrency", Integer),
    Column("models", Text, nullable=False, server_default='["*"]'),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("client_id", String(64), ForeignKey("clients.id", name="fk_api_keys_client"), nullable=False, index=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53)),
    Column("revoked_at", Float(53)),
    Column("replaces", String(64), index=True),
)

key_uses = Table(
    "key_uses",
    metadata,
    Column("key_id", String(64), ForeignKey("api_keys.id", name="fk_key_uses_key"), primary_key=True),
    Column("used_at", Float(53), nullable=False),
)

quota_uses = Table(
    "quota_uses",
    metadata,
    Column("client_id", String(64), ForeignKey("clients.id", name="fk_quota_uses_client"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("day", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", Text, nullable=False),
)

models = Table("models", metadata, Column("name", String(128), primary_key=True))

versions = Table(
    "versions",
    metadata,
    Column("model", String(128), ForeignKey("models.name", name="fk_versions_model"), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("digest", String(64), ForeignKey("manifests.digest", name="fk_versions_manifest"), nullable=False),
    Column("content_digest", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("sequence", BigInteger, nullable=False, unique=True),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("model", String(128), ForeignKey("models.name", name="fk_endpoints_model"), nullable=False),
    Column("revision", BigInteger, nullable=False),
)

traffic = Table(
    "traffic",
    metadata,
    Column("endpoint", String(128), ForeignKey("endpoints.name", name="fk_traffic_endpoint"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("share", Integer, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], name="fk_traffic_version"),
    UniqueConstraint("endpoint", "version", name="uq_traffic_version"),
    CheckConstraint("share BETWEEN 0 AND 100", name="ck_traffic_share"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("client", String(255), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("arm", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("queue_us", BigInteger, nullable=False),
    Column("compute_us", BigInteger, nullable=False),
    Column("total_us", BigInteger, nullable=False),
    Column("request_bytes", BigInteger, nullable=False),
    Column("answer_bytes", BigInteger, nullable=False),
    Column("flag", String(255), nullable=False),
    Column("surface", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("manifest", String(64), nullable=False),
    Column("redaction", String(255), nullable=False),
    Column("payload_sha256", String(64), nullable=False),
    Column("raw_header", LargeBinary),
    Column("raw", LargeBinary),
    # Filters read newest first; status rides along so that it is checked without reading the row. The one by model and
    # version also serves either alone (records/streams.py): each index more slows the drain down.
    Index("ix_predictions_client", "client", "at", "status"),
    Index("ix_predictions_endpoint", "endpoint", "at", "status"),
    Index("ix_predictions_model_version", "model", "version", "at", "status"),
)


def _is_a_server(*_: Any, dialect: Dialect, **__: Any) -> bool:
    return dialect.name != "sqlite"


_AT = [predictions.c[name] for name in ("at", "status", "endpoint")]
_COUNTED = ("model", "version", "client", "total_us", "request_bytes", "answer_bytes", "rows")
Index("ix_predictions_at", *_AT).ddl_if(callable_=_is_a_server)
Index("ix_predictions_figures", *_AT, *(predictions.c[name] for name in _COUNTED)).ddl_if(dialect="sqlite")
"""SQLite keeps bodies in the row: figures of a minute that is not rolled up yet are counted along the index alone."""

_MODEL = [predictions.c[name] for name in ("model", "at", "version", "status")]
Index("ix_predictions_model", *_MODEL).ddl_if(dialect="postgresql")  # dialects.plans_each_day says why

FAILED = predictions.c.status >= literal_column("400")
"""What a failure is, spelled as the partial index below spells it, so that the planner recognises it."""

Index("ix_predictions_failed", predictions.c.at, predictions.c.status, sqlite_where=FAILED, postgresql_where=FAILED)

HAS_SUBJECT = predictions.c.subject > literal_column("''")
FLAGGED = and_(predictions.c.flag > literal_column("''"), predictions.c.flag != literal_column("'request_refused'"))
"""What the next two indexes hold, spelled alike: most records have neither."""

Index(
    "ix_predictions_subject",
    predictions.c.subject,
    predictions.c.at,
    sqlite_where=HAS_SUBJECT,
    postgresql_where=HAS_SUBJECT,
)
Index("ix_predictions_flagged", predictions.c.at, sqlite_where=FLAGGED, postgresql_where=FLAGGED)

outcomes = Table(
    "outcomes",
    metadata,
    Column("prediction_id", String(64), primary_key=True),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
    Column("value_key", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("client", String(255), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("current", Integer, nullable=False),
    # When the prediction was; null until its record is stored. Pages of predictions by outcome go along it.
    Column("prediction_at", BigInteger),
)

CURRENT = and_(outcomes.c.current == literal_column("1"), outcomes.c.prediction_at.is_not(None))
"""The latest outcome of an item whose record is stored, spelled as the indexes spell it."""
WAITING = outcomes.c.prediction_at.is_(None)

Index(
    "ix_outcomes_value",
    outcomes.c.value_key,
    outcomes.c.prediction_at,
    outcomes.c.prediction_id,
    outcomes.c.item,
    sqlite_where=CURRENT,
    postgresql_where=CURRENT,
)
Index(
    "ix_outcomes_at",
    outcomes.c.prediction_at,
    outcomes.c.prediction_id,
    outcomes.c.item,
    sqlite_where=CURRENT,
    postgresql_where=CURRENT,
)
Index("ix_outcomes_waiting", outcomes.c.prediction_id, sqlite_where=WAITING, postgresql_where=WAITING)

quarantined_predictions = Table(
    "quarantined_predictions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("payload_sha256", String(64), primary_key=True),
    Column("record", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("client", String(255), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Index("ix_quarantined_predictions_at", "at"),
)

spool_positions = Table(
    "spool_positions",
    metadata,
    Column("file", String(255), primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

legal_holds = Table(
    "legal_holds",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("model", String(128)),
    Column("endpoint", String(128)),
    Column("client", String(255)),
    Column("subject", String(256)),
    Column("since", Float(53)),
    Column("until", Float(53)),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Index("ix_erasures_at", "at"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)

retention_state = Table(
    "retention_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("swept_at", Float(53), nullable=False),
    CheckConstraint("id = 1", name="ck_retention_state_one_row"),
)

rollups = Table(
    "rollups",
    metadata,
    Column("grain", Integer, primary_key=True, autoincrement=False),
    Column("client", String(255), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("endpoint", String(128), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("client_errors", BigInteger, nullable=False),
    Column("server_errors", BigInteger, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("total_us", BigInteger, nullable=False),
    Column("request_bytes", BigInteger, nullable=False),
    Column("answer_bytes", BigInteger, nullable=False),
    Column("max_us", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
    Column("p50_us", Float(53)),
    Column("p90_us", Float(53)),
    Column("p99_us", Float(53)),
    # A day is made of its hours, whoever the clients are.
    Index("ix_rollups_start", "grain", "start"),
)
"""Figures of a minute, an hour or a day (`grain` in seconds, `start` in UNIX seconds)."""
EVERYBODY = "*"
"""The client of rollups over all clients together; no client can have this name."""

score_rollups = Table(
    "score_rollups",
    metadata,
    Column("grain", Integer, primary_key=True, autoincrement=False),
    Column("model", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("output", String(255), primary_key=True),
    Column("scores", LargeBinary, nullable=False),
    Index("ix_score_rollups_start", "grain", "start"),
)

pending_rollups = Table(
    "pending_rollups",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("taken", Integer, primary_key=True, autoincrement=False),
)
"""Minutes that changed since they were rolled up; `taken` 1: somebody is about it, or died over it."""

audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("address", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    # Pages go newest first by time; the sequence tells apart what happened in one microsecond.
    Index("ix_audit_events_at", "at", "sequence"),
    Index("ix_audit_events_action", "action", "at", "sequence"),
    # Actor and action ride along, so that a page of one subject checks them without reading the rows.
    Index("ix_audit_events_subject", "subject", "at", "sequence", "actor", "action"),
    Index("ix_audit_events_actor", "actor", "at", "sequence"),
    Index("ix_audit_events_actor_action", "actor", "action", "at", "sequence"),
)
