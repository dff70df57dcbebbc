"""Make a backup of a data folder, and look whether one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.backup.create import create as create_backup
from modelyard.backup.restore import verify as verify_backup
from modelyard.cli.backup.shown import facts, quiet_events, watched
from modelyard.cli.exits import Exit
from modelyard.cli.terminal.options import AsJson, Data
from modelyard.cli.terminal.output import print_json, progress, say, size_text
from modelyard.core.clock import SystemClock
from modelyard.core.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Back up a data folder, and check a backup.")

WAIT_S = 30.0

Backup = Annotated[Path, typer.Argument(help="The backup: a folder or a tar file.", metavar="BACKUP")]


@app.command()
def create(
    out: Annotated[Path, typer.Option("--out", help="A tar file (NAME.tar), or a folder; not there yet.")],
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Longest wait for records in the spool.")
    ] = WAIT_S,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Back up a data folder, also beside a running server: database, artifacts, audit log, key of the redaction.

    All that was answered before the call is in it, or counted where the log lags. It is as private as the folder.

    Example: `modelyard backup create --out backup-monday.tar`
    """
    quiet_events()
    settings = load_settings(data=data)
    with progress("Backing up", None, in_bytes=True, quiet=as_json) as bar:
        made = create_backup(settings, out, SystemClock(), wait_s, bar)
    if as_json:
        print_json({"out": str(out)} | facts(made))
        return
    say(f"Backed up to {out}: {made.counts['records']:,} records, {made.counts['versions']} versions, "
        f"{made.counts['keys']} keys, {size_text(made.size_bytes)}.")  # fmt: skip
    if made.waiting:
        typer.secho(f"warning: {made.waiting:,} records waited in the spool and are not in it", err=True)
    for what, why in made.left_out.items():
        say(f"Left out: {what} ({why}).")


@app.command()
def verify(backup: Backup, as_json: AsJson = False) -> None:
    """Restore a backup into a scratch folder and compare all of it. Exit code 1 if anything is wrong.

    The scratch folder needs the space of the backup, in TMPDIR or beside it.

    Example: `modelyard backup verify backup-monday.tar`
    """
    quiet_events()
    with watched("Checking", as_json) as begin:
        manifest, findings = verify_backup(backup, load_settings(), begin)
    if as_json:
        found = [{"code": one.code, "subject": one.subject, "message": one.message} for one in findings]
        print_json({"sound": not findings, "findings": found} | facts(manifest))
    else:
        for one in findings:
            say(f"{one.code}: {one.subject}: {one.message}")
        counts = f"{len(manifest.files)} files, {manifest.counts['records']:,} records, made {manifest.created_at}"
        say(f"The backup is NOT sound ({counts})." if findings else f"The backup is sound: {counts}.")
    if findings:
        raise typer.Exit(Exit.REFUSED)
