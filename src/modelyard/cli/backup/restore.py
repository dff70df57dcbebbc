"""`modelyard restore`: a data folder from its backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.backup.restore import restore
from modelyard.cli.backup.commands import Backup
from modelyard.cli.backup.shown import facts, quiet_events, watched
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_json, say
from modelyard.core.settings import load_settings


def restore_command(
    backup: Backup,
    data: Annotated[Path, typer.Option("--data", help="The new data folder: empty, or not there yet.", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Restore a backup into a new data folder; it is verified first, and one that is damaged leaves nothing.

    Example: `modelyard restore backup-monday.tar --data modelyard-restored`
    """
    quiet_events()
    with watched("Restoring", as_json) as begin:
        made = restore(backup, data, load_settings(), begin)
    if as_json:
        print_json({"data": str(data)} | facts(made))
        return
    say(f"Restored to {data}, as of {made.created_at}: {made.counts['records']:,} records, "
        f"{made.counts['versions']} versions, {made.counts['keys']} keys.")  # fmt: skip
    if made.waiting:
        typer.secho(f"warning: {made.waiting:,} records waited in the spool then and are not in it", err=True)
    say(f"Start it: modelyard serve --data {data}")
