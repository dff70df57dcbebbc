"""Making a table of the target what the source's is, whatever of it is there already.

Both are read in the order of their keys and compared row by row: what is missing is added, what differs is replaced,
what the source has no more is removed. So a run that was killed is taken up by the next one, and a later run brings
what came since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam, delete, select, update

from modelyard.core.errors import CommandError
from modelyard.core.lease import Fence
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence
from modelyard.storage.sql.transfer.rows import MOST_ROWS, PAGE_BYTES, Entry, Fetch, Sum, Summing, keys_of, ordered
from modelyard.storage.sql.transfer.tables import is_referred_to, key_of

Advance = Callable[[int], object]


def reading(connection: Connection) -> Fetch:
    """Reads inside one transaction: all pages see one state."""
    return lambda query: connection.execute(query).all()


def reading_anew(database: Database) -> Fetch:
    """Reads each page in a transaction of its own, so that none is open while others write."""

    def fetch(query: Any) -> Sequence[Sequence[Any]]:
        with database.read() as connection:
            return connection.execute(query).all()

    return fetch


class TargetTable:
    """One table of the target, under the lease of the copy that writes it."""

    def __init__(self, database: Database, table: Table, fence: Fence) -> None:
        self._database = database
        self._table = table
        self._fence = fence
        self._append = database.dialect.append(table, [column.name for column in table.columns])
        self._replaces = not is_referred_to(table)

    def is_empty(self) -> bool:
        """Whether nothing is in it."""
        with self._database.read() as connection:
            return connection.execute(select(*key_of(self._table)).limit(1)).first() is None

    def remove_gone(self, source: Fetch) -> int:
        """Removes what the source has no more; how many rows that were."""
        removed, gone = 0, _only_first(keys_of(self._table, reading_anew(self._database)), keys_of(self._table, source))
        for keys in _batches(gone):
            with self._database.write(holds_appends=True) as connection:
                check_fence(connection, self._fence)
                self._delete(connection, keys)
            removed += len(keys)
        return removed

    def bring(self, source: Fetch, advance: Advance) -> tuple[Sum, int]:
        """Adds what is missing and replaces what differs; the sum of the source's rows, and how many were written."""
        summing, written = Summing(), 0
        there: Iterable[Entry] = () if self.is_empty() else ordered(self._table, reading_anew(self._database))

        def wanted() -> Iterator[Entry]:
            for entry in ordered(self._table, source):
                summing.add(entry)
                yield entry

        for different in _by_size(_differing(wanted(), iter(there), advance)):
            self._write(different)
            written += len(different)
        return summing.sum(), written

    def sum(self, advance: Advance) -> Sum:
        """What is in it, read in one transaction."""
        summing = Summing()
        with self._database.read() as connection:
            for entry in ordered(self._table, reading(connection)):
                summing.add(entry)
                advance(1)
        return summing.sum()

    def _write(self, pairs: Sequence[tuple[Entry, bool]]) -> None:
        changed = [entry for entry, is_there in pairs if is_there]
        added = [entry for entry, is_there in pairs if self._replaces or not is_there]
        with self._database.write(holds_appends=True) as connection:
            check_fence(connection, self._fence)
            if changed and self._replaces:
                self._delete(connection, [entry.key for entry in changed])
            elif changed:
                self._update(connection, changed)
            if added and self._append(connection, [entry.values for entry in added]) != len(added):
                raise CommandError(
                    "copy_failed",
                    f"Rows of the table `{self._table.name}` are taken in the target: somebody else writes into it.",
                    field="--to",
                    got=self._table.name,
                )

    def _delete(self, connection: Connection, keys: Sequence[tuple[Any, ...]]) -> None:
        columns = key_of(self._table)
        mine = and_(*(column == bindparam(f"key_{column.name}") for column in columns))
        named = [{f"key_{column.name}": part for column, part in zip(columns, key, strict=True)} for key in keys]
        connection.execute(delete(self._table).where(mine), named)

    def _update(self, connection: Connection, entries: Sequence[Entry]) -> None:
        columns, keys = list(self._table.columns), key_of(self._table)
        mine = and_(*(column == bindparam(f"key_{column.name}") for column in keys))
        others = [column for column in columns if column not in set(keys)]
        values: dict[str, Any] = {column.name: bindparam(f"new_{column.name}") for column in others}
        named = [
            {f"key_{column.name}": part for column, part in zip(keys, entry.key, strict=True)}
            | {f"new_{column.name}": value for column, value in zip(columns, entry.values, strict=True)}
            for entry in entries
        ]
        connection.execute(update(self._table).where(mine).values(values), named)


def _differing(wanted: Iterator[Entry], there: Iterator[Entry], advance: Advance) -> Iterator[tuple[Entry, bool]]:
    """Rows of the source that the target lacks, or has otherwise (True)."""
    found = next(there, None)
    for entry in wanted:
        advance(1)
        while found is not None and found.key < entry.key:
            found = next(there, None)
        if found is None or found.key != entry.key:
            yield entry, False
        elif found.content != entry.content:
            yield entry, True


def _only_first(first: Iterator[Any], second: Iterator[Any]) -> Iterator[Any]:
    """What is in the first alone; both are in order."""
    other = next(second, None)
    for key in first:
        while other is not None and other < key:
            other = next(second, None)
        if other is None or other != key:
            yield key


def _batches(keys: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for key in keys:
        batch.append(key)
        if len(batch) == MOST_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _by_size(pairs: Iterator[tuple[Entry, bool]]) -> Iterator[list[tuple[Entry, bool]]]:
    """As many as one transaction should take."""
    batch: list[tuple[Entry, bool]] = []
    size_bytes = 0
    for pair in pairs:
        batch.append(pair)
        size_bytes += len(pair[0].content)
        if len(batch) == MOST_ROWS or size_bytes >= PAGE_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
