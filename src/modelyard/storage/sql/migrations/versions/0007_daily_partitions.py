"""On PostgreSQL the prediction log in daily partitions; elsewhere nothing.

Revision 0007. No record is moved, but those whose ids lie in the days' range: the table of before becomes a partition,
after PostgreSQL has read it once.
"""

from __future__ import annotations

import time

from alembic import op
from sqlalchemy import Connection, text

from modelyard.storage.sql.dialects.partitions.postgresql import make_days

revision = "0007"
down_revision = "0006"
phase = "pre"

_VIEWS = text(
    "WITH RECURSIVE reads(oid) AS (SELECT 'predictions'::regclass::oid UNION "
    "SELECT r.ev_class FROM reads JOIN pg_depend d ON d.refobjid = reads.oid JOIN pg_rewrite r ON r.oid = d.objid) "
    "SELECT v.relname, pg_get_viewdef(v.oid) FROM pg_class v JOIN reads USING (oid) WHERE v.relkind = 'v' "
    "ORDER BY v.oid"
)
_INDEXES = text(
    "SELECT c.relname, pg_get_indexdef(c.oid), i.indisprimary FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE i.indrelid = 'predictions'::regclass ORDER BY c.relname"
)
_GRANTS = text(
    "SELECT format('GRANT %s ON predictions TO %s', a.privilege_type, "
    "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END) "
    "FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'predictions'::regclass"
)


def upgrade() -> None:
    """The table of before, beside the days to come."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    looks = _Looks(connection)
    for name in looks.indexes:
        op.execute(f'ALTER INDEX "{name}" RENAME TO "{name}_before"')
    op.execute("ALTER TABLE predictions RENAME TO predictions_before")
    op.execute("CREATE TABLE predictions (LIKE predictions_before INCLUDING DEFAULTS) PARTITION BY RANGE (id)")
    looks.give_to_new_table()
    op.execute("CREATE TABLE predictions_strays PARTITION OF predictions DEFAULT")
    op.execute(
        "WITH ours AS (DELETE FROM predictions_before WHERE id >= 'p' RETURNING *) "
        "INSERT INTO predictions_strays SELECT * FROM ours"
    )
    op.execute("ALTER TABLE predictions ATTACH PARTITION predictions_before FOR VALUES FROM (MINVALUE) TO ('p')")
    make_days(connection, time.time())


def downgrade() -> None:
    """One table again, to which all records are copied."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    looks = _Looks(connection)
    for name in looks.indexes:
        op.execute(f'ALTER INDEX "{name}" RENAME TO "{name}_days"')
    op.execute("ALTER TABLE predictions RENAME TO predictions_days")
    op.execute("CREATE TABLE predictions (LIKE predictions_days INCLUDING DEFAULTS)")
    op.execute("INSERT INTO predictions SELECT * FROM predictions_days")
    looks.give_to_new_table()
    op.execute("DROP TABLE predictions_days")


class _Looks:
    """What belongs to the table and would stay with it when it is renamed: indexes, views, rights."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.indexes = {row[0]: None if row[2] else row[1] for row in connection.execute(_INDEXES)}
        self._views = connection.execute(_VIEWS).all()
        self._grants = connection.scalars(_GRANTS).all()

    def give_to_new_table(self) -> None:
        """Makes them anew; views in their place, with the rights on them and what reads them."""
        self._run("ALTER TABLE predictions ADD CONSTRAINT predictions_pkey PRIMARY KEY (id)")
        for definition in self.indexes.values():
            if definition is not None:
                self._run(definition.replace(" ON ONLY ", " ON "))
        for name, definition in self._views:
            self._run(f'CREATE OR REPLACE VIEW "{name}" AS {definition}')
        for grant in self._grants:
            self._run(grant)

    def _run(self, statement: str) -> None:
        self._connection.exec_driver_sql(statement.replace("%", "%%"))
