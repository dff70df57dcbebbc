"""`modelyard predictions`: the prediction log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.files import written
from modelyard.cli.terminal.options import (
    AsJson,
    Client,
    Data,
    Endpoint,
    KeyText,
    Model,
    Server,
    Since,
    Status,
    Until,
    Version,
    filters,
)
from modelyard.cli.terminal.output import moment, print_json, print_table, progress, say
from modelyard.core.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Read the prediction log.")

PAGE = 1000
FORMS = ("jsonl", "csv")


@app.command("list")
def list_(
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most records.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where the last page ended.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """List records, newest first.

    Example: `modelyard predictions list --model tree --status 4xx --since 1h`
    """
    wanted = filters(model, version, client, endpoint, status, since, until)
    found: list[dict[str, Any]] = []
    with backend(data, server, key) as work:
        while len(found) < limit:
            page = work.predictions(wanted, min(PAGE, limit - len(found)), cursor)
            found += page["predictions"]
            cursor = page["cursor"]
            if cursor is None:
                break
    if as_json:
        print_json({"predictions": found, "cursor": cursor})
        return
    print_table(
        ("Id", "Time", "Client", "Endpoint", "Version", "Status", "Rows", "µs"),
        ((r["id"], moment(r["time"]), r["client"], r["endpoint"], r["version"], r["status"], r["rows"],
          r["latency"]["total_us"]) for r in found),
        "No prediction matches.",
    )  # fmt: skip
    if cursor is not None:
        say(f"There are more: --cursor {cursor}")


@app.command()
def count(
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Count records.

    Example: `modelyard predictions count --client acme --since 24h`
    """
    with backend(data, server, key) as work:
        number = work.count_predictions(filters(model, version, client, endpoint, status, since, until))
    if as_json:
        print_json({"count": number})
    else:
        say(str(number))


@app.command()
def show(
    prediction_id: Annotated[str, typer.Argument(metavar="ID", help="The prediction's id (`x-prediction-id`).")],
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Show one record whole, as JSON.

    Example: `modelyard predictions show 1f3a5c7e9b2d4f600000000001`
    """
    with backend(data, server, key) as work:
        record = work.prediction(prediction_id)
    if as_json:
        print_json(record)
    else:
        say(orjson.dumps(record, default=str, option=orjson.OPT_INDENT_2).decode())


@app.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Export records, oldest first; a file appears only when all of it is written.

    Example: `modelyard predictions export --format jsonl --out predictions.jsonl`
    """
    if form not in FORMS:
        raise CommandError("usage_invalid", f"There is no format `{form}`.", field="--format", expected="jsonl or csv")
    wanted = filters(model, version, client, endpoint, status, since, until)
    with backend(data, server, key) as work:
        total = work.count_predictions(wanted) if out is not None else None
        with written(out) as file, progress("Exporting", total, quiet=as_json or out is None) as done:
            for piece in work.export_predictions(wanted, form):
                file.write(piece)
                done(piece.count(b"\n"))
    if out is not None and as_json:
        print_json({"out": str(out), "format": form, "size_bytes": out.stat().st_size})
    elif out is not None:
        say(f"Exported to {out}.")
