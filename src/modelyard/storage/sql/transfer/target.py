"""Whose a target is. Nothing that is not a copy of the same source is ever written over.

While a copy is under way the lease `copy` is held in the target, in the source's name. It stays when the process dies:
`storage.sql.upgrade` refuses to open such a database for anything else, and the next run of the same copy takes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Connection, func, inspect, select

from modelyard.audit.chain import Head
from modelyard.core.errors import CommandError, ConflictError
from modelyard.core.lease import Fence
from modelyard.storage.sql import schema
from modelyard.storage.sql.audit.trail import hash_at, last_head
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import SqlLeases
from modelyard.storage.sql.transfer.tables import ALWAYS_FILLED, copied_tables
from modelyard.storage.sql.upgrade import COPY_LEASE, stored_revision

LEASE_S = 60.0
"""How long another source's copy waits for one that died; each write is fenced besides."""
_SHOWN = 4


def check_foreign(database: Database) -> None:
    """CommandError("copy_target_taken") for a database with tables and without a schema of ours."""
    with database.read() as connection:
        tables = inspect(connection).get_table_names()
        if tables and stored_revision(connection) is None:
            raise _taken(f"tables that are not ours ({_some(sorted(tables))})")


def check_whose(source: Connection, target: Database) -> None:
    """CommandError("copy_target_taken") unless the target is empty, or holds what an earlier copy of this source
    brought, and nothing since."""
    with target.read() as connection:
        found, last = holdings(connection), last_head(connection)
    if not found:
        return
    if last is None:
        raise _taken(_named(found))
    if hash_at(source, last.sequence) != last.hash:
        known = last_head(source)
        if last.sequence > (known.sequence if known else 0):
            raise _taken(f"an audit log that goes on to event {last.sequence}, which the source lacks: it was served")
        raise _taken(f"{_named(found)}; its audit log is not the source's")


def holdings(connection: Connection) -> dict[str, int]:
    """How many rows are in each table that is not empty."""
    counted = {table.name: _count(connection, table.name) for table in copied_tables()}
    return {name: rows for name, rows in counted.items() if rows and name not in ALWAYS_FILLED}


def counts(connection: Connection) -> dict[str, int]:
    """How many rows each table has."""
    return {table.name: _count(connection, table.name) for table in copied_tables()}


@contextmanager
def claimed(target: Database, first: Head) -> Iterator[Fence]:
    """The lease of the target, in the name of the source whose first audit event this is; given back if the block ends
    well. ConflictError("lease_held") while the copy of another source runs."""
    leases = SqlLeases(target)
    fence = leases.acquire(COPY_LEASE, first.hash, LEASE_S)
    if fence is None:
        raise ConflictError("lease_held", "Another copy into this database is under way.", field="--to")
    yield fence
    leases.release(fence)


def is_same(source: Connection, fence: Fence, first: Head) -> bool:
    """Whether the source has the lease that was just taken in the target: then both are one database."""
    lease = schema.leases.c
    held = select(lease.token).where(lease.name == fence.name, lease.holder == first.hash)
    return source.scalar(held) == fence.token


def give_up(target: Database, fence: Fence) -> None:
    """Gives the lease back though nothing was copied."""
    SqlLeases(target).release(fence)


def _count(connection: Connection, name: str) -> int:
    return int(connection.execute(select(func.count()).select_from(schema.metadata.tables[name])).scalar_one())


def _named(found: Mapping[str, int]) -> str:
    return _some([f"{name}: {rows:,}" for name, rows in found.items()])


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _taken(what: str) -> CommandError:
    return CommandError(
        "copy_target_taken",
        f"The target holds something else: {what}. Nothing was changed in it.",
        field="--to",
        expected="an empty database, or an earlier copy of the same source that was not served since",
    )
