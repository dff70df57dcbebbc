"""The data folder: who may read it, how much it may grow, its database, and whether its times and ours agree."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.app.folder import DataFolder
from modelyard.cli.doctor.findings import Finding, State, found, judged
from modelyard.core.clock import SystemClock
from modelyard.core.settings import MIB, Settings

if TYPE_CHECKING:
    from modelyard.storage.sql.upgrade import Standing

AREA = "data"
SKEW_S = 2.0
"""More than this between two clocks of one machine, or with its database, is no measuring error."""
FUTURE_S = 60.0
DYNAMODB = "dynamodb://"
HIGH = 0.75
"""The share of journal.max_spool_bytes at which the server warns too."""


def permissions(folder: DataFolder) -> Iterator[Finding]:
    """Whether the folder is ours alone, and writable."""
    path = folder.path
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        said = f"{path} will be made at the first start"
        yield judged(AREA, "folder", said, os.access(above, os.W_OK), f"Make {above} writable.", State.PROBLEM)
        return
    if not path.is_dir():
        yield Finding(AREA, "folder", State.PROBLEM, f"{path} is no folder", "Choose another with --data.")
        return
    status = path.stat()
    mode, uid = stat.S_IMODE(status.st_mode), os.geteuid()
    owned = status.st_uid == uid or uid == 0
    said = f"{path}, mode {mode:04o}, owner {status.st_uid}"
    if not owned or not os.access(path, os.W_OK | os.X_OK):
        yield Finding(AREA, "folder", State.PROBLEM, said, f"chown -R {uid} {path}, or run as its owner.")
        return
    yield judged(AREA, "folder", said, not mode & 0o077, f"chmod 700 {path} (a start does it too)")
    loose = [each for each in _files(path) if stat.S_IMODE(each.lstat().st_mode) & 0o022 and not each.is_symlink()]
    said = "no file can be written by others" if not loose else f"others may write {loose[0]} and {len(loose) - 1} more"
    yield judged(AREA, "files", said, not loose, f"chmod -R go-w {path}", State.PROBLEM)


def _files(path: Path) -> Iterator[Path]:
    """The files that a server works with; artifacts are many, and checked when they are loaded."""
    for each in path.iterdir():
        yield each
        if each.name in ("spool", "tls") and each.is_dir():
            yield from each.iterdir()


def disk(folder: DataFolder, settings: Settings) -> Iterator[Finding]:
    """The space that is left, against what the spool may take."""
    place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
    free, bound = shutil.disk_usage(place).free, settings.journal.max_spool_bytes
    used = sum(file.stat().st_size for file in folder.spool.glob("*") if file.is_file())
    said = f"{free // MIB:,} MiB free; the spool may take {bound // MIB:,} MiB"
    remedy = "Free some space, or lower journal.max_spool_bytes."
    if free < min(bound, 64 * MIB):
        yield Finding(AREA, "disk", State.PROBLEM, said, remedy)
    else:
        yield judged(AREA, "disk", said, free + used > bound, remedy)
    said = f"{used / MIB:,.1f} MiB wait for the database"
    yield judged(AREA, "spool", said, used < HIGH * bound, "See whether the drain runs and the database answers.")


def server(folder: DataFolder) -> Iterator[Finding]:
    """Whether a server runs on it now."""
    running = folder.running() if folder.path.is_dir() and folder.locked() else None
    yield found(AREA, "server", f"process {running['pid']} at {running['url']}" if running else "none runs on it")


def database(folder: DataFolder, settings: Settings) -> Iterator[Finding]:
    """Whether the database answers, and at which schema. Nothing is changed in it."""
    if settings.database.url is not None:
        yield from _tables(settings) if settings.database.url.startswith(DYNAMODB) else _remote(settings)
        return
    if not folder.database.is_file():
        yield found(AREA, "database", "none yet; the first start makes it")
        return
    try:
        # Without a log beside it nobody writes; then SQLite need not make one to read.
        alone = "" if folder.database.with_name("modelyard.db-wal").exists() else "&immutable=1"
        with closing(sqlite3.connect(f"{folder.database.as_uri()}?mode=ro{alone}", uri=True, timeout=5)) as connection:
            (floor,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            has = "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_revision'"
            schema = floor
            if connection.execute(has).fetchone() == (1,):
                (schema,) = connection.execute("SELECT version_num FROM schema_revision").fetchone()
    except sqlite3.Error as error:
        remedy = "Restore the folder from its backup, or move the file away."
        yield Finding(AREA, "database", State.PROBLEM, f"SQLite: {error}", remedy)
        return
    said = f"SQLite, schema {schema}, {folder.database.stat().st_size / MIB:,.1f} MiB"
    remedy = "This folder was used by a newer Modelyard: pip install --upgrade modelyard"
    yield judged(AREA, "database", said, floor in _schemas(), remedy, State.PROBLEM)


def _schemas() -> set[str]:
    """The schemas that this version knows."""
    from modelyard.storage import sql

    versions = Path(str(sql.__file__)).parent / "migrations" / "versions"
    return {path.name.partition("_")[0] for path in versions.glob("[0-9]*.py")}


def _remote(settings: Settings) -> Iterator[Finding]:
    from modelyard.storage.sql.database import Database
    from modelyard.storage.sql.upgrade import standing

    opened = Database(settings.database.url or "", settings.database.busy_timeout_s)
    try:
        begun = time.time()
        with opened.read() as connection:
            said = connection.exec_driver_sql("SELECT CURRENT_TIMESTAMP").scalar_one()
            took = time.time() - begun
            where = standing(connection)
    finally:
        opened.close()
    yield found(AREA, "database", f"answers in {took * 1000:.0f} ms")
    yield _schema(where)
    theirs = said if isinstance(said, datetime) else datetime.fromisoformat(str(said))
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    yield _clocks(begun, theirs.timestamp(), took)


def _tables(settings: Settings) -> Iterator[Finding]:
    from modelyard.storage.dynamodb.metadata.transactions import HEAD
    from modelyard.storage.dynamodb.open import DynamoDatabase

    opened = DynamoDatabase(settings, SystemClock())
    try:
        opened.open()
        begun = time.time()
        theirs = opened.requests.get_at(opened.tables.metadata, HEAD)[1]
        took = time.time() - begun
    finally:
        opened.close()
    yield found(AREA, "database", f"answers in {took * 1000:.0f} ms")
    yield _clocks(begun, theirs, took)


def _clocks(ours: float, theirs: float, took: float) -> Finding:
    skew = abs(ours - theirs)
    good = skew <= SKEW_S + took + 1  # it tells whole seconds
    return judged(AREA, "database clock", f"{skew:.0f} s from this machine's", good, "Run NTP on both (chrony).")


def _schema(where: Standing) -> Finding:
    from modelyard.cli.database.migrate import standing_text

    if (where.floor or "") > max(_schemas()):
        remedy = "This database was changed by a newer Modelyard: pip install --upgrade modelyard"
        return Finding(AREA, "schema", State.PROBLEM, f"schema {where.floor}", remedy)
    lacks = where.revision is not None and bool(where.additions or where.blocked)
    return judged(AREA, "schema", standing_text(where), not lacks, "`modelyard migrate status` shows the steps.")


def clock(folder: DataFolder) -> Iterator[Finding]:
    """This machine's clock, against the file system's, and against what was written before."""
    place = next(path for path in (folder.path, *folder.path.parents) if path.is_dir() and os.access(path, os.W_OK))
    with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
        skew = Path(file.name).stat().st_mtime - time.time()
    said = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {abs(skew):.1f} s from the file system's"
    yield judged(AREA, "clock", said, abs(skew) <= SKEW_S, "Run NTP here and on the file server (chrony).")
    newest = max((path.stat().st_mtime for path in _files(folder.path)), default=0.0) if folder.path.is_dir() else 0.0
    ahead = newest - time.time()
    said = "no file is from the future" if ahead < FUTURE_S else f"files here are {ahead:,.0f} s ahead of the clock"
    yield judged(AREA, "past", said, ahead < FUTURE_S, "Set the clock: records and expiries go by it.")
