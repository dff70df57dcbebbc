"""`modelyard copy`: everything of one data folder, database and bucket in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import msgspec
import typer

from modelyard.cli.backup.commands import WAIT_S
from modelyard.cli.backup.shown import quiet_events
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_json, print_table, progress, say
from modelyard.core.clock import SystemClock
from modelyard.transfer.copy import Begin, Copied, copy
from modelyard.transfer.side import sides

SIDE = "DIR|FILE.toml|URL"


def copy_command(
    source: Annotated[
        str, typer.Option("--from", metavar=SIDE, help="A data folder, a configuration file, or a database URL.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar=SIDE, help="The same; empty, or an earlier copy that was not served yet.")
    ],
    source_artifacts: Annotated[
        str | None, typer.Option("--from-artifacts", metavar="s3://…", help="The source's bucket, if it has one.")
    ] = None,
    target_artifacts: Annotated[
        str | None, typer.Option("--to-artifacts", metavar="s3://…", help="The target's bucket, if it is to have one.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Longest wait for records in the spool.")
    ] = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Copy everything to another database: models, endpoints, keys, usage, audit log, prediction log with outcomes.

    The source may be serving and is not changed. Killed, it goes on when it is called again; later it brings what came
    since. All is compared at the end. A database URL is served with the data folder of the other side.

    Example: `modelyard copy --from modelyard-data --to postgresql://modelyard@db.example.com/modelyard`
    """
    quiet_events()
    origin, goal = sides(source, target, source_artifacts, target_artifacts)
    with _watched(as_json) as begin:
        copied = copy(origin, goal, SystemClock(), wait_s, begin)
    if as_json:
        print_json(msgspec.to_builtins(copied) | {"rows": copied.rows})
    else:
        _show(copied)


@contextmanager
def _watched(quiet: bool) -> Iterator[Begin]:
    """One bar after the other."""
    with ExitStack() as opened:

        def begin(label: str, steps: int) -> Callable[[int], object]:
            opened.pop_all().close()
            return opened.enter_context(progress(label, steps, quiet=quiet))

        yield begin


def _show(copied: Copied) -> None:
    rows = [
        (name, f"{found.rows:,}", f"{copied.written.get(name, 0):,}", found.sha256[:16])
        for name, found in copied.tables.items()
    ]
    print_table(("table", "rows", "written", "SHA-256, both sides"), rows, "Nothing to copy.")
    head = f"audit log sound up to event {copied.audit_head.sequence}"
    say(f"Copied to {copied.target}: {copied.rows:,} rows, equal on both sides; {head}.")
    if copied.waiting:
        typer.secho(f"warning: {copied.waiting:,} records waited in the spool; call it again", err=True)
    if copied.private == "unknown":
        typer.secho(
            "warning: the source's data folder is not known, so the secret of the redaction was not copied: name the "
            "source by its configuration file",
            err=True,
        )
