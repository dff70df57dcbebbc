"""`python -m bench.drain_mysql`: records a second into MySQL, by the drain's sink and by PyMySQL, in turns (bench.drain
says what is compared). A throw-away MariaDB is started for it (durable: a flush for each commit), or `--database-url`
names an empty database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from sqlalchemy import make_url

from bench.drain import BUSY_TIMEOUT_S, Bare, Rows, run
from modelyard.storage.prediction_row import COLUMNS
from modelyard.storage.sql.dialects.mysql import connect_args

OPTIONS = (
    "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G",
)  # fmt: skip
_INSERT = (
    f"INSERT INTO predictions ({', '.join(f'`{name}`' for name in COLUMNS)}) "
    f"VALUES ({', '.join(['%s'] * len(COLUMNS))})"
)


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection of the driver's own, with our session's settings."""
    parsed = make_url(url)
    login = {"host": parsed.host, "port": parsed.port or 3306, "user": parsed.username, "database": parsed.database}
    connection = pymysql.connect(**login, **connect_args(parsed, BUSY_TIMEOUT_S))  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        connection.close()


def insert(connection: Any, rows: Rows) -> None:
    """`executemany`, which PyMySQL makes INSERTs of many rows of."""
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, rows)
    connection.commit()


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """A throw-away one: its empty database, and its process."""
    from tests.mariadb.server import serving

    with serving(*OPTIONS) as started:
        yield started.empty(), started.process.pid


if __name__ == "__main__":
    run("bench.drain_mysql", __doc__, Bare(connected, insert), server)
