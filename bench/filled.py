"""A prediction log that was filled by its own database, on SQLite or PostgreSQL: ten million records take minutes."""

from __future__ import annotations

from sqlalchemy import Connection, text

from modelyard.storage.sql import dialects
from modelyard.storage.sql.database import Database
from modelyard.testing import fill_log

STEP = 1_000_000
"""Records of one transaction."""
_DAY_S = 86_400
_POSTGRESQL = """
INSERT INTO predictions
SELECT 'p' || lpad(to_hex(at_us / 16000000), 7, '0') || lpad(to_hex(i % 7), 12, '0')
           || lpad(to_hex(i % 16777216), 6, '0'),
       at_us, 'r' || i, CASE WHEN i < 1000 THEN 'early' ELSE 'c' || (i % 20) END, 'k' || (i % 20),
       CASE WHEN i < 1000 THEN 'old' ELSE 'e' || (i % 5) END, CASE WHEN i < 1000 THEN 'old' ELSE 'm' || (i % 5) END,
       CASE WHEN i % 1000 = 7 THEN 'rare' ELSE (i % 3)::text END, 0,
       CASE WHEN i % 100 = 3 THEN 400 WHEN i % 5000 = 9 THEN 500 ELSE 200 END, '', 1,
       '{{"X":[{{"a":1.5,"b":2.5,"c":3.5,"d":4.5}}]}}', '{{"label":[1],"probabilities":[[0.25,0.75]]}}',
       10, 20, 40, 120, 80, CASE WHEN i % 50000 = 11 THEN 'undecoded' ELSE '' END, 'oip',
       CASE WHEN i % 10 = 1 THEN 's' || (i % 9973) ELSE '' END, 'm', 'none', 'sha', NULL, NULL
FROM (SELECT i, {at}::bigint * 1000000 + i * {step} AS at_us FROM generate_series({first}::bigint, {last}) AS i) n
"""
"""The records of modelyard.testing.fill_log, with ids that tell the time: each lies in the partition of its day."""


def fill(database: Database, records: int, first_s: int, step_us: int) -> None:
    """Puts so many records into an empty log, `step_us` apart, and notes that no minute of them is rolled up."""
    last_s = first_s + records * step_us // 1_000_000
    if database.engine.dialect.name == "postgresql":
        _make_days(database, first_s, last_s)
    for first in range(0, records, STEP):
        # The kind of transaction whose statements may take as long as they take.
        with database.upgrade() as connection:
            _fill(connection, first, min(STEP, records - first), first_s, step_us)
    with database.upgrade() as connection:
        connection.execute(text("INSERT INTO pending_rollups SELECT DISTINCT at / 60000000 * 60, 0 FROM predictions"))
    if database.engine.dialect.name == "postgresql":
        _tidy(database)


def _fill(connection: Connection, first: int, count: int, first_s: int, step_us: int) -> None:
    if connection.dialect.name == "sqlite":
        fill_log(connection, first, count, first_s, step_us)
        return
    statement = _POSTGRESQL.format(first=first, last=first + count - 1, at=first_s, step=step_us)
    connection.exec_driver_sql(statement.replace("%", "%%"))


def _make_days(database: Database, first_s: int, last_s: int) -> None:
    """The partitions that the holder of retention's lease would have made on those days."""
    with database.upgrade() as connection:
        for at_s in range(first_s, last_s + _DAY_S, _DAY_S):
            dialects.make_days(connection, at_s)


def _tidy(database: Database) -> None:
    """What autovacuum would have done meanwhile: it looks at each partition by itself."""
    with database.read() as connection:
        names = [day.name for day in dialects.days(connection)]
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {name}")
