"""`modelyard migrate`: the schema of a database, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.cli.backup.shown import quiet_events
from modelyard.cli.terminal.options import AsJson, Data
from modelyard.cli.terminal.output import print_json, print_table, say
from modelyard.core.settings import Settings, load_settings
from modelyard.storage.sql import dialects, schema
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.open import DATABASE_FILE, open_stores
from modelyard.storage.sql.upgrade import Phase, Standing, migrate, standing, steps

app = typer.Typer(no_args_is_help=True, help="Show and run the steps of the database's schema.")

Config = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.")]


@app.command()
def status(data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show the schema of the database and the steps that it lacks. Nothing is changed.

    Example: `modelyard migrate status --config modelyard.toml`
    """
    quiet_events()
    found = _standing(_settings(data, config))
    if as_json:
        print_json(msgspec.to_builtins(found) | {"program": schema.HEAD})
        return
    pending = {step.revision for step in found.pending}
    rows = [(one.revision, one.phase, "pending" if one.revision in pending else "done", one.says) for one in steps()]
    print_table(("revision", "phase", "", "does"), rows, "No steps.")
    say(standing_text(found))


@app.command()
def pre(data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Add what this program needs; programs of the release before work on. Run it before the first new program starts.

    Example: `modelyard migrate pre --config modelyard.toml`
    """
    _migrate("pre", _settings(data, config), as_json)


@app.command()
def post(data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Remove what only older programs use. Run it when the last of them has stopped: they can't start any more.

    Example: `modelyard migrate post --config modelyard.toml`
    """
    _migrate("post", _settings(data, config), as_json)


def _settings(data: Path | None, config: Path | None) -> Settings:
    return load_settings(config, data=data)


def _migrate(phase: Phase, settings: Settings, as_json: bool) -> None:
    quiet_events()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _database(settings) as database:
        database.open()
        with database.read() as connection:
            before = standing(connection).revision
        done = migrate(database, phase)
    found = _standing(settings)
    if done:
        _record(settings, before, found.revision)
    if as_json:
        print_json({"done": msgspec.to_builtins(done)} | msgspec.to_builtins(found) | {"program": schema.HEAD})
        return
    for step in done:
        say(f"{step.revision} ({step.phase}): {step.says}")
    say(standing_text(found) if done else f"Nothing to do. {standing_text(found)}")


def _record(settings: Settings, before: str | None, after: str | None) -> None:
    kept = settings.model_copy(update={"database": settings.database.model_copy(update={"upgrade": "off"})})
    stores = open_stores(kept, kept.data)
    try:
        stores.audit.append(Change(AuditAction.SCHEMA_MIGRATE, "schema:database", before, after))
    finally:
        stores.close()


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    url = settings.database.url or dialects.sqlite_url(settings.data / DATABASE_FILE)
    database = Database(url, settings.database.busy_timeout_s)
    try:
        yield database
    finally:
        database.close()


def _standing(settings: Settings) -> Standing:
    """Where the database is; a SQLite file that is not there is not made."""
    if settings.database.url is None and not (settings.data / DATABASE_FILE).exists():
        return Standing(None, None, steps())
    with _database(settings) as database, database.read() as connection:
        return standing(connection)


def standing_text(found: Standing) -> str:
    """Where a database is and what to do, in a sentence."""
    if found.revision is None:
        return "The database is empty: the first start, or `modelyard migrate pre`, makes its tables."
    stands = f"The database has schema {found.revision}, this program {schema.HEAD}"
    if found.revision > schema.HEAD:
        return f"{stands}: a newer program added to it, and this one works on."
    if found.blocked:
        return f"{stands}: steps that remove come first; run `modelyard migrate post` once no older program runs."
    if found.additions:
        return f"{stands}: run `modelyard migrate pre`."
    if found.pending:
        return f"{stands}: run `modelyard migrate post` once no older program runs."
    return f"{stands}: nothing is pending."
