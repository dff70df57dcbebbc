"""Everything of one installation in another: database, files, and what is private to the data folder.

The source may be serving: it is read as of one moment, and but for two events of its audit log nothing is written in
it. A run that was killed is taken up by the next one, and a later run brings what came since, until the target is
served for the first time.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert, select

from modelyard.app.folder import DataFolder
from modelyard.audit.chain import Head
from modelyard.audit.event import AuditEvent, Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.backup import waiting
from modelyard.core.clock import Clock
from modelyard.core.errors import CommandError
from modelyard.core.lease import Fence
from modelyard.storage.artifacts import open_artifacts
from modelyard.storage.audit_row import to_row
from modelyard.storage.file.audit_head import HeadFile
from modelyard.storage.sql import schema
from modelyard.storage.sql.audit.log import SqlAuditLog
from modelyard.storage.sql.audit.trail import AuditTrail, hash_at, last_head
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.leases import check_fence
from modelyard.storage.sql.open import AUDIT_HEAD_FILE
from modelyard.storage.sql.records.sink import SqlRecordSink
from modelyard.storage.sql.transfer.days import make_days
from modelyard.storage.sql.transfer.merge import TargetTable, reading
from modelyard.storage.sql.transfer.rows import Sum
from modelyard.storage.sql.transfer.tables import copied_tables
from modelyard.storage.sql.transfer.target import check_foreign, check_whose, claimed, counts, give_up, is_same
from modelyard.storage.sql.upgrade import check_current, upgrade_to_head
from modelyard.transfer.files import check_artifacts, check_secret, copy_artifacts, copy_private
from modelyard.transfer.side import Side, check_there, same_artifacts, same_side

Begin = Callable[[str, int], Callable[[int], object]]
"""Told what begins and how many steps it has; gives what is told of each."""


class Copied(msgspec.Struct, frozen=True):
    """What a copy brought. `tables` has the sums, equal on both sides; `written` the rows that this run added or
    replaced, `removed` those that the source had no more; `versions` how many had their files copied by this run;
    `waiting` records of the source's spool that are not in it; `audit_head` the last event of the target's log.
    `private` says what became of the data folder's own files: `copied`, `shared` (the same folder), `unknown`."""

    source: str
    target: str
    tables: dict[str, Sum]
    written: dict[str, int]
    removed: int
    versions: int
    waiting: int
    audit_head: Head
    private: str

    @property
    def rows(self) -> int:
        """All rows together."""
        return sum(found.rows for found in self.tables.values())


def silent(_label: str, _steps: int) -> Callable[[int], object]:
    """Nobody watches."""
    return bool


def copy(source: Side, target: Side, clock: Clock, wait_s: float, begin: Begin = silent) -> Copied:
    """Brings everything of `source` to `target` and compares it there, table by table and event by event.

    All that was answered before the call is in it, but for what the source's database lacks after `wait_s` seconds.
    CommandError("copy_target_taken" | "copy_same_side" | "copy_failed" | "copy_differs"), ConflictError("lease_held" |
    "lease_lost" | "data_folder_in_use"), SettingsError("data_folder_unusable" | "schema_outdated").
    """
    check_there(source)
    with ExitStack() as opened:
        origin = opened.enter_context(_database(source))
        check_current(origin)
        goal = opened.enter_context(_target(source, target))
        log = opened.enter_context(_audit_log(source.folder, origin, clock))
        with origin.read() as connection:
            check_whose(connection, goal)
        left = _settle(source, origin, clock, wait_s)
        subject = f"copy:{secrets.token_hex(6)}"
        log.append(Change(AuditAction.COPY_START, subject, None, {"from": source.shown, "to": target.shown}))
        with origin.moment() as moment:
            first = Head(1, hash_at(moment, 1) or "")
            with claimed(goal, first) as fence:
                _check_apart(origin, goal, fence, first)
                check_whose(moment, goal)
                versions = _bring_files(moment, source, target, clock, begin)
                removed, written, sums = _bring_tables(moment, goal, fence, begin)
                private = _bring_private(source, target)
                head = _verify(goal, target, clock, last_head(moment) or first)
                facts = {name: msgspec.to_builtins(found) for name, found in sums.items()}
                finished = log.append(Change(AuditAction.COPY_FINISH, subject, None, {"tables": facts}))[-1]
                head = _follow(goal, target, fence, finished) or head
    return Copied(source.shown, target.shown, sums, written, removed, versions, left, head, private)


@contextmanager
def _database(side: Side) -> Iterator[Database]:
    database = Database(side.database_url, side.settings.database.busy_timeout_s)
    try:
        database.open()
        yield database
    finally:
        database.close()


@contextmanager
def _target(source: Side, target: Side) -> Iterator[Database]:
    """The target's database at the newest schema, its data folder kept from servers meanwhile."""
    if target.folder is not None:
        target.folder.open()
        target.folder.lock()
        if source.folder is not None:
            check_secret(source.folder, target.folder)
    try:
        with _database(target) as database:
            check_foreign(database)
            upgrade_to_head(database, whole=False)
            check_current(database)
            yield database
    finally:
        if target.folder is not None:
            target.folder.unlock()


@contextmanager
def _audit_log(folder: DataFolder | None, database: Database, clock: Clock) -> Iterator[SqlAuditLog]:
    """The audit log of a side. Where no data folder is known, nobody here is a witness: the head is the log's own."""
    with ExitStack() as opened:
        if folder is not None:
            heads = HeadFile(folder.path / AUDIT_HEAD_FILE)
        else:
            heads = HeadFile(Path(opened.enter_context(tempfile.TemporaryDirectory())) / AUDIT_HEAD_FILE)
            with database.read() as connection:
                last = last_head(connection)
            if last is not None:
                heads.advance(last)
        yield SqlAuditLog(database, AuditTrail(heads, clock), heads)


def _check_apart(origin: Database, goal: Database, fence: Fence, first: Head) -> None:
    with origin.read() as connection:
        same = is_same(connection, fence, first)
    if same:
        give_up(goal, fence)
        raise same_side()


def _settle(source: Side, origin: Database, clock: Clock, wait_s: float) -> int:
    """Waits for the records of this moment; how many the source's database still lacks."""
    if source.folder is None:
        return 0
    spool = source.folder.spool
    marks = waiting.mark(spool)
    if marks and not source.folder.locked():
        waiting.store_rest(source.settings)
    position = SqlRecordSink(origin).position
    return waiting.records(spool, waiting.settled(spool, marks, position, clock, wait_s), position)


def _bring_files(moment: Connection, source: Side, target: Side, clock: Clock, begin: Begin) -> int:
    digests = list(moment.scalars(select(schema.versions.c.digest).distinct().order_by(schema.versions.c.digest)))
    store = open_artifacts(target.settings.artifacts, target.settings.data, clock)
    if same_artifacts(source, target):
        check_artifacts(digests, store)
        return 0
    origin = open_artifacts(source.settings.artifacts, source.settings.data, clock)
    return copy_artifacts(digests, origin, store, begin("Copying files", len(digests)))


def _bring_tables(
    moment: Connection, goal: Database, fence: Fence, begin: Begin
) -> tuple[int, dict[str, int], dict[str, Sum]]:
    tables = {table.name: TargetTable(goal, table, fence) for table in copied_tables()}
    source = reading(moment)
    removed = sum(table.remove_gone(source) for table in reversed(tables.values()) if not table.is_empty())
    make_days(moment, goal, fence)
    advance = begin("Copying rows", sum(counts(moment).values()))
    sums, written = {}, {}
    for name, table in tables.items():
        sums[name], rows = table.bring(source, advance)
        if rows:
            written[name] = rows
    advance = begin("Comparing rows", sum(found.rows for found in sums.values()))
    for name, table in tables.items():
        if (found := table.sum(advance)) != sums[name]:
            raise _differs(
                f"The table `{name}` has {found.rows:,} rows with SHA-256 {found.sha256} in the target, "
                f"{sums[name].rows:,} with {sums[name].sha256} in the source."
            )
    return removed, written, sums


def _bring_private(source: Side, target: Side) -> str:
    if target.folder is None:
        return "shared"
    if source.folder is None:
        return "unknown"
    try:
        copy_private(source.folder, target.folder, source.settings.database.busy_timeout_s)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CommandError("copy_failed", f"The data folder cannot be written: {reason}.", field="--to") from None
    return "copied"


def _verify(goal: Database, target: Side, clock: Clock, head: Head) -> Head:
    """Checks the target's audit log, hash by hash; its last event is the one that the source had."""
    with _audit_log(target.folder, goal, clock) as log:
        _advance(target, head)
        for problem in log.verify((head,)).problems:
            raise _differs(f"The audit log is not sound at event {problem.sequence}: {problem.message}")
    return head


def _follow(goal: Database, target: Side, fence: Fence, event: AuditEvent) -> Head | None:
    """Has the target know of the end too, if nothing else came into the source's log meanwhile."""
    with goal.write() as connection:
        check_fence(connection, fence)
        if last_head(connection) != Head(event.sequence - 1, event.previous):
            return None
        connection.execute(insert(schema.audit_events), [to_row(event)])
    head = Head(event.sequence, event.hash)
    _advance(target, head)
    return head


def _advance(target: Side, head: Head) -> None:
    if target.folder is not None:
        HeadFile(target.folder.path / AUDIT_HEAD_FILE).advance(head)


def _differs(message: str) -> CommandError:
    return CommandError("copy_differs", f"{message} Run the copy again.", field="--to")
