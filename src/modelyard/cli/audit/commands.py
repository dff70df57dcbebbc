"""List, verify and export the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.exits import Exit
from modelyard.cli.terminal.files import read_json_object, written
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server, Since, Until
from modelyard.cli.terminal.output import moment, print_json, print_table, say
from modelyard.core.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Read and check the log of changes.")

PAGE = 1000

Action = Annotated[str | None, typer.Option("--action", help="Only this action: key:create, traffic:set, …")]
Subject = Annotated[str | None, typer.Option("--subject", help="Only this subject: endpoint:tree, key:ID, …")]
Who = Annotated[str | None, typer.Option("--actor", help="Only by this client, or local:UID/USER.")]


@app.command("list")
def list_(
    action: Action = None,
    subject: Subject = None,
    actor: Who = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most events.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where the last page ended.")] = None,
    head: Annotated[bool, typer.Option("--head", help="Only the last event's number and hash, as JSON.")] = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """List changes, newest first. `--head` prints what to keep elsewhere (or to sign) against a cut-off end.

    Example: `modelyard audit list --action traffic:set --since 7d`
    """
    with backend(data, server, key) as work:
        if head:
            print_json(work.audit_head())
            return
        wanted = _filters(action, subject, actor, since, until)
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            page = work.audit(wanted, min(PAGE, limit - len(found)), cursor)
            found += page["events"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if as_json:
        print_json({"events": found, "next_cursor": cursor})
        return
    print_table(("No.", "Time", "Who", "Action", "What", "Before", "After"), map(_row, found), "No event matches.")
    if cursor is not None:
        say(f"There are more: --cursor {cursor}")


@app.command()
def verify(
    head: Annotated[
        Path | None, typer.Option("--head", help="A head that was kept: JSON of `audit list --head`.", metavar="FILE")
    ] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Check that no event was changed, removed, moved or cut off. Exit code 1 if one was.

    Example: `modelyard audit verify`
    """
    kept = None if head is None else _read_head(head)
    with backend(data, server, key) as work:
        found = work.verify_audit(kept)
    if as_json:
        print_json(found)
    elif found["sound"]:
        last = f", the last with hash {found['head']['hash']}" if found["head"] else ""
        say(f"The audit log is sound: {found['checked']} events{last}.")
    else:
        rows = ((p["sequence"], p["code"], p["message"]) for p in found["problems"])
        print_table(("Event", "Problem", ""), rows, "")
        say(f"The audit log is NOT sound ({found['checked']} events were read).")
    if not found["sound"]:
        raise typer.Exit(Exit.REFUSED)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    action: Action = None,
    subject: Subject = None,
    actor: Who = None,
    since: Since = None,
    until: Until = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Export events as JSON Lines, in the order of the chain; without a filter, anybody can check the file.

    Example: `modelyard audit export --out audit.jsonl`
    """
    wanted = _filters(action, subject, actor, since, until)
    with backend(data, server, key) as work, written(out) as file:
        for piece in work.export_audit(wanted):
            file.write(piece)
    if out is not None and as_json:
        print_json({"out": str(out), "size_bytes": out.stat().st_size})
    elif out is not None:
        say(f"Exported to {out}.")


def _filters(
    action: str | None, subject: str | None, actor: str | None, since: str | None, until: str | None
) -> dict[str, str]:
    named = {"action": action, "subject": subject, "actor": actor, "since": since, "until": until}
    return {name: text for name, text in named.items() if text}


def _read_head(path: Path) -> dict[str, Any]:
    found = read_json_object(path)
    if type(found.get("sequence")) is not int or not isinstance(found.get("hash"), str):
        raise CommandError("file_unreadable", f"`{path}` cannot be read: it holds no head.", field="--head")
    return {"sequence": found["sequence"], "hash": found["hash"]}


def _row(event: Mapping[str, Any]) -> tuple[Any, ...]:
    who = event["actor"] + (f" ({event['key_id']})" if event["key_id"] else "")
    shown = (event["before"], event["after"])
    if event["action"].startswith("server:"):
        shown = (None, None)
    return (str(event["sequence"]), moment(event["at"]), who, event["action"], event["subject"], *shown)
