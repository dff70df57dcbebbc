"""`modelyard retention`: how long records stay, legal holds, deletion by subject."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.options import AsJson, Client, Data, Endpoint, KeyText, Model, Server, Since, Until
from modelyard.cli.terminal.output import moment, print_facts, print_json, print_table, progress, say

app = typer.Typer(no_args_is_help=True, help="Say how long records stay, hold them, delete them by subject.")

WHY = {
    "clock_jumped": "the clock jumped since the server started",
    "gap_too_long": "the last sweep is longer ago than retention.max_gap_days",
    "too_many_at_once": "that is more than retention.max_share of all records",
}
SWEPT = ("predictions", "outcomes", "quarantined", "archived")
Subject = Annotated[str | None, typer.Option("--subject", help="Only records about this subject.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how much it is.")]


@app.command()
def show(data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False) -> None:
    """How long records stay, how many are due, and why they wait if they do.

    Example: `modelyard retention show`
    """
    with backend(data, server, key) as work:
        found = work.retention()
    if as_json:
        print_json(found)
        return
    due = found["due"]
    print_facts(
        {
            "Stay": f"{found['days']} days and a day of grace" if found["days"] else "for ever",
            "Set aside": f"{found['quarantine_days']} days" if found["quarantine_days"] else "for ever",
            "Due": f"{due['predictions']} of {due['stored']} records, {due['quarantined']} set aside",
            "Held": due["held"],
            "Last sweep": moment(found["swept_at"]) or "never",
        }
    )
    if found["put_off"]:
        say(f"Nothing leaves by itself: {WHY[found['put_off']]}. If that is right: modelyard retention run --force")


@app.command()
def run(
    force: Annotated[bool, typer.Option("--force", help="Although the clock or the amount looks wrong.")] = False,
    dry_run: DryRun = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Delete now what is due; a server does so by itself, once an hour. Exit code 1 if it is put off.

    Example: `modelyard retention run --dry-run`
    """
    with backend(data, server, key) as work:
        found = work.retention()
        if dry_run:
            done: dict[str, Any] = {**found["due"], "put_off": found["put_off"], "dry_run": True}
        else:
            done = {"predictions": 0, "outcomes": 0, "quarantined": 0, "archived": 0, "more": True, "put_off": None}
            with progress("Deleting", found["due"]["predictions"], quiet=as_json) as bar:
                while done["more"]:
                    part = work.sweep(force)
                    done = {**part, **{n: done[n] + part[n] for n in SWEPT}}
                    bar(part["predictions"])
    if as_json:
        print_json(done)
    elif dry_run:
        _say_what_would_go(done)
    elif not (done["put_off"] or done["predictions"] or done["outcomes"] or done["quarantined"]):
        say("Nothing is due.")
    elif not done["put_off"]:
        say(
            f"Deleted {done['predictions']} records with {done['outcomes']} outcomes, and {done['quarantined']} that "
            f"were set aside; {done['archived']} are in the archive. The certificates are in the audit log (action "
            "retention:delete)."
        )
    if done["put_off"]:
        typer.secho(f"Nothing leaves: {WHY[done['put_off']]}. If that is right: --force", err=True)
        raise typer.Exit(1)


@app.command()
def hold(
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.")],
    model: Model = None,
    endpoint: Endpoint = None,
    client: Client = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Put a legal hold on what matches all that is named; it stays until the hold is released.

    Example: `modelyard retention hold --reason 'case 2026-17' --client acme`
    """
    named = {"model": model, "endpoint": endpoint, "client": client, "subject": subject, "since": since, "until": until}
    with backend(data, server, key) as work:
        made = work.hold({"reason": reason, **{name: text for name, text in named.items() if text}})
    if as_json:
        print_json(made)
    else:
        say(f"Held. Release it with: modelyard retention release {made['id']}")


@app.command()
def holds(data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False) -> None:
    """List the legal holds in force.

    Example: `modelyard retention holds`
    """
    with backend(data, server, key) as work:
        found = work.holds()
    if as_json:
        print_json({"holds": found})
        return
    print_table(("Id", "Since", "Reason", "Holds"), map(_row, found), "Nothing is held.")


@app.command()
def release(
    hold_id: Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id.")],
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """End a legal hold; what is due leaves with the next sweep.

    Example: `modelyard retention release 3f9c0a12be77`
    """
    with backend(data, server, key) as work:
        ended = work.release(hold_id)
    if as_json:
        print_json(ended)
    else:
        say(f"Released: {ended['reason']}")


@app.command()
def erase(
    subject: Annotated[str, typer.Option("--subject", help="Whom the records are about.")],
    dry_run: DryRun = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Delete what is stored about a subject, and what is still on its way into the log.

    Records, outcomes, and answers kept for retries go. What a legal hold keeps stays; backups made before have it too.

    Example: `modelyard retention erase --subject patient-17 --dry-run`
    """
    counts = ("predictions", "outcomes", "quarantined", "kept_answers", "archived")
    with backend(data, server, key) as work:
        done = work.erase(subject, dry_run)
        while done["more"]:
            part = work.erase(subject, dry_run)
            done = {**part, **{name: done[name] + part[name] for name in counts}}
    if as_json:
        print_json(done)
    elif dry_run:
        _say_what_would_go(done)
    else:
        say(
            f"Deleted {done['predictions']} records with {done['outcomes']} outcomes, {done['quarantined']} that were "
            f"set aside, {done['kept_answers']} kept answers, {done['archived']} in the archive. "
            f"{done['held']} are held and stay."
        )


def _say_what_would_go(due: dict[str, Any]) -> None:
    say(f"{due['predictions']} records and {due['quarantined']} set aside would go; {due['held']} are held.")


def _row(hold: dict[str, Any]) -> tuple[Any, ...]:
    names = ("model", "endpoint", "client", "subject", "since", "until")
    what = ", ".join(f"{name} {hold[name]}" for name in names if hold[name])
    return hold["id"], moment(hold["at"]), hold["reason"], what or "everything"
