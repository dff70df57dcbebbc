"""Brings a database to the newest schema, safely when several processes start at once.

Each revision says what it is. `pre` only adds: programs that do not know it work on (the field calls it *expand*).
`post` takes away what only older programs use (*contract*). Two tables say where a database is:

* `schema_revision`: the last revision that was applied;
* `alembic_version`: the revision that a program must know at least, raised by `post` steps alone. Programs up to schema
  0005 read nothing else, and work beside newer ones as long as it stays.

Alembic takes 0.1 s and more to import, which a start that has nothing to migrate does not pay: the stored revision
is read first, and only a difference imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, select

from modelyard.core.errors import SettingsError
from modelyard.core.events import Event
from modelyard.storage.sql import schema
from modelyard.storage.sql.database import Database
from modelyard.telemetry.logs import emit

MIGRATIONS = Path(__file__).with_name("migrations")
COPY_LEASE = "copy"
"""The lease that a copy holds in its target until all is there."""
FIRST_FLOOR = "0005"
"""What `alembic_version` says before any `post` step: the schema of the programs that read nothing else."""

_versions = MetaData()
APPLIED, FLOOR = (
    Table(name, _versions, Column("version_num", String(32), primary_key=True))
    for name in ("schema_revision", "alembic_version")
)

Phase = Literal["pre", "post"]
AtStart = Literal["auto", "pre", "off"]


class Step(msgspec.Struct, frozen=True):
    """One revision: its number, its phase, and what it does in a sentence."""

    revision: str
    phase: Phase
    says: str


class Standing(msgspec.Struct, frozen=True):
    """Where a database is: its revision (None: it is empty), the one that a program must know at least, and the steps
    of this program that it lacks, in order."""

    revision: str | None
    floor: str | None
    pending: tuple[Step, ...]

    @property
    def additions(self) -> tuple[Step, ...]:
        """The `pre` steps before the first `post` step: with none missing this program runs."""
        count = next((at for at, step in enumerate(self.pending) if step.phase == "post"), len(self.pending))
        return self.pending[:count]

    @property
    def blocked(self) -> bool:
        """Whether a `pre` step lies behind a `post` step of an earlier release that was never run."""
        return any(step.phase == "pre" for step in self.pending[len(self.additions) :])


def upgrade_to_head(database: Database, whole: bool = True, at_start: AtStart = "auto") -> None:
    """Runs the migrations that are missing, as far as `at_start` lets a start do it: all in one transaction, one
    process after the other.

    SettingsError("data_folder_unusable") if the database was written by a newer program that took away what this one
    needs, ("schema_outdated") if steps are missing that are not to be run here, ("copy_unfinished") if a copy into it
    did not end, unless `whole` is False.
    """
    with database.read() as connection:
        if stored_revision(connection) == schema.HEAD:
            if whole:
                _check_whole(connection)
            return
        found = standing(connection)
    _check_known(found)
    alone = at_start == "auto" and database.engine.dialect.name == "sqlite"
    upto: Phase = "post" if alone or found.revision is None else "pre"
    if found.additions or found.blocked or (upto == "post" and found.pending):
        if at_start == "off":
            raise _outdated(found, "run `modelyard migrate pre` (`database.upgrade` is off)")
        migrate(database, upto)
    if whole:
        with database.read() as connection:
            _check_whole(connection)


def migrate(database: Database, upto: Phase) -> tuple[Step, ...]:
    """Runs the missing steps: the `pre` ones, or all of them; those that it ran. One process after the other.

    SettingsError("data_folder_unusable" | "schema_outdated").
    """
    with database.upgrade() as connection:
        found = standing(connection)  # another process may have been quicker
        _check_known(found)
        if upto == "pre" and found.blocked:
            raise _outdated(
                found, "steps that remove are pending from an earlier release: run `modelyard migrate post`"
            )
        steps = found.additions if upto == "pre" else found.pending
        if steps:
            _run(connection, steps[-1].revision)
            if found.revision is not None:  # a new one was not upgraded
                emit(Event.SCHEMA_UPGRADED, "info", before=found.revision, after=steps[-1].revision)
        return steps


def standing(connection: Connection) -> Standing:
    """Where the database is."""
    revision, floor = stored_revision(connection), _read(connection, FLOOR)
    known = steps(connection.dialect.name)
    numbers = [step.revision for step in known]
    done = numbers.index(revision) + 1 if revision in numbers else 0 if revision is None else len(numbers)
    return Standing(revision, floor, known[done:])


def steps(database: str | None = None) -> tuple[Step, ...]:
    """All that this program knows, in order. A revision may name the kinds of `databases` that it is for: in others it
    does nothing, and is an addition."""
    from alembic.script import ScriptDirectory

    scripts = reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions()))
    return tuple(
        Step(script.revision, _phase(script.module, database), script.doc.splitlines()[0]) for script in scripts
    )


def _phase(revision: object, database: str | None) -> Phase:
    databases: Sequence[str | None] = getattr(revision, "databases", (database,))
    phase: Phase = getattr(revision, "phase", "pre")
    return phase if database is None or database in databases else "pre"


def check_current(database: Database) -> None:
    """Nothing is lacking for this program, and nothing is there that it does not know; nothing is changed.
    SettingsError("schema_outdated" | "data_folder_unusable")."""
    with database.read() as connection:
        if stored_revision(connection) == schema.HEAD:
            return
        found = standing(connection)
    _check_known(found)
    if (found.revision or "") > schema.HEAD:
        raise _newer(found.revision)
    if found.additions or found.blocked:
        raise _outdated(found, "run `modelyard migrate pre`, or start a server on it")


def stored_revision(connection: Connection) -> str | None:
    """The revision that the database says it has, None if it is empty."""
    return _read(connection, APPLIED if _has(connection, APPLIED) else FLOOR)


def _has(connection: Connection, table: Table) -> bool:
    return connection.dialect.has_table(connection, table.name)


def _read(connection: Connection, table: Table) -> str | None:
    if not _has(connection, table):
        return None
    revision: str | None = connection.scalar(select(table.c.version_num))
    return revision


def _write(connection: Connection, table: Table, revision: str) -> None:
    table.create(connection, checkfirst=True)
    connection.execute(delete(table))
    connection.execute(insert(table).values(version_num=revision))


def adopt(connection: Connection) -> None:
    """Lets a database whose `alembic_version` says all have its `schema_revision`; before Alembic reads it."""
    revision = _read(connection, FLOOR)
    if revision is not None and not _has(connection, APPLIED):
        _write(connection, APPLIED, revision)


def _run(connection: Connection, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    _write(connection, FLOOR, _floor(steps(connection.dialect.name), target))


def _floor(known: Sequence[Step], revision: str) -> str:
    """What a program must know at least at this revision."""
    removing = [step.revision for step in known if step.phase == "post" and step.revision <= revision]
    return max([min(FIRST_FLOOR, revision), *removing])


def _check_known(found: Standing) -> None:
    """A newer program may have added what it likes; what it took away may be needed here."""
    floor = found.floor or found.revision or ""
    if floor > schema.HEAD:
        raise _newer(floor)


def _newer(revision: str | None) -> SettingsError:
    return SettingsError(
        "data_folder_unusable",
        f"The database has schema {revision}, this program knows up to {schema.HEAD}: a newer one wrote it.",
        field="database.url",
        expected=schema.HEAD,
        got=revision,
    )


def _outdated(found: Standing, remedy: str) -> SettingsError:
    return SettingsError(
        "schema_outdated",
        f"The database has schema {found.revision or 'none'}, this program needs {_needed(found)}: {remedy}.",
        field="database.url",
        expected=_needed(found),
        got=found.revision,
    )


def _needed(found: Standing) -> str:
    """The last step that adds: without those that remove this program runs."""
    adding = [step.revision for step in found.pending if step.phase == "pre"]
    return adding[-1] if adding else schema.HEAD


def _check_whole(connection: Connection) -> None:
    lease = schema.leases.c
    if connection.scalar(select(lease.holder).where(lease.name == COPY_LEASE)):
        raise SettingsError(
            "copy_unfinished",
            "The database is the target of a `modelyard copy` that has not ended: run it again, with the same --from.",
            field="database.url",
        )
