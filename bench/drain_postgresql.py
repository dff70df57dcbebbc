"""`python -m bench.drain_postgresql`: records a second into PostgreSQL, by the drain's sink and by psycopg's COPY, in
turns (bench.drain says what is compared). A throw-away server is started for it (durable: a flush for each commit), or
`--database-url` names an empty database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

from bench.drain import Bare, Rows, run
from modelyard.storage.prediction_row import COLUMNS

OPTIONS = (
    "fsync=on", "shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min", "autovacuum=off",
)  # fmt: skip
"""Nothing of these is less durable than PostgreSQL's defaults; no checkpoint falls into one pass and not the other."""
_COPY = f"COPY predictions ({', '.join(COLUMNS)}) FROM STDIN"


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as psycopg makes it."""
    parsed = make_url(url)
    with psycopg.connect(
        host=parsed.host, port=parsed.port, user=parsed.username, dbname=parsed.database
    ) as connection:
        yield connection


def insert(connection: psycopg.Connection[Any], rows: Rows) -> None:
    """COPY, row by row as psycopg's documentation does it, straight into the table."""
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """A throw-away one: its empty database, and its process."""
    from tests.postgres.server import serving

    with serving(options=OPTIONS) as started:
        yield started.empty(), started.pid


if __name__ == "__main__":
    run("bench.drain_postgresql", __doc__, Bare(connected, insert), server)
