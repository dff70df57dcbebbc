"""How our tables are written for MySQL and MariaDB.

* Text compares by its bytes and to its last character, as SQLite and Python do: names that differ by case or by a
  space at their end are two names, pages are the same pages. Each server calls such a collation by a name of its own.
* TEXT and BLOB end at 64 KiB there: a record's inputs may be longer. Short bytes are VARBINARY, which a unique index
  can hold whole; numbers of 53 bits are DOUBLE, which is what the server makes of FLOAT(53) anyway.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Float, LargeBinary, Table, Text
from sqlalchemy.dialects.mysql.base import MySQLDDLCompiler, MySQLTypeCompiler

MARIADB_COLLATION, MYSQL_COLLATION = "utf8mb4_nopad_bin", "utf8mb4_0900_bin"


def adapt(dialect: Any) -> None:
    """Has an engine's dialect write our tables so."""
    dialect.ddl_compiler = _Definitions
    dialect.type_compiler_instance = dialect.type_compiler = _Types(dialect)  # Alembic asks by the older name


class _Types(MySQLTypeCompiler):
    def visit_text(self, type_: Text, **_: Any) -> str:
        return "LONGTEXT"

    def visit_large_binary(self, type_: LargeBinary, **_: Any) -> str:
        return "LONGBLOB" if type_.length is None else f"VARBINARY({type_.length})"

    def visit_float(self, type_: Float[Any], **_: Any) -> str:
        return "DOUBLE"


class _Definitions(MySQLDDLCompiler):
    def post_create_table(self, table: Table) -> str:
        collation = MARIADB_COLLATION if self.dialect.is_mariadb else MYSQL_COLLATION
        ours = f"ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={collation}"
        return " ".join(filter(None, (ours, super().post_create_table(table))))  # partitions come last

    def get_column_default_string(self, column: Column[Any]) -> str | None:
        default = super().get_column_default_string(column)
        # MySQL takes a default of a long text only as an expression.
        return f"({default})" if default is not None and isinstance(column.type, Text) else default
