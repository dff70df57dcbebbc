"""`modelyard predictions`: the prediction log, and what came true of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from modelyard.cli.backends import Json, backend
from modelyard.cli.terminal.files import written
from modelyard.cli.terminal.options import (
    AsJson,
    Client,
    Data,
    Endpoint,
    Items,
    KeyText,
    Model,
    Outcome,
    Server,
    Since,
    Status,
    Subject,
    Until,
    Version,
    WithArchive,
    filters,
)
from modelyard.cli.terminal.output import moment, print_json, print_table, progress, say, size_text
from modelyard.core.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Read the prediction log; say what came true.")

PAGE = 1000
FORMS = ("jsonl", "csv", "parquet")
OUTCOMES_PER_REQUEST_BYTES = 512 * 1024
"""So much of a file of outcomes goes into one request."""

Id = Annotated[str, typer.Argument(metavar="ID", help="The prediction's id (`x-prediction-id`).")]
Quarantined = Annotated[
    bool, typer.Option("--quarantined", help="What could not be stored as a record of its own, with the reason.")
]


@app.command("list")
def list_(
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    subject: Subject = None,
    outcome: Outcome = None,
    items: Items = False,
    quarantined: Quarantined = False,
    with_archive: WithArchive = False,
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
    wanted = filters(
        model, version, client, endpoint, status, since, until, subject, outcome, items, quarantined, with_archive
    )
    found: list[Json] = []
    with backend(data, server, key) as work:
        while len(found) < limit:
            page = work.predictions(wanted, min(PAGE, limit - len(found)), cursor)
            found += page["predictions"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if as_json:
        print_json({"predictions": found, "next_cursor": cursor})
        return
    show_rows = _quarantined_table if quarantined else _items_table if items else _requests_table
    show_rows(found)
    if cursor is not None:
        say(f"There are more: --cursor {cursor}")


def _requests_table(found: list[Json]) -> None:
    print_table(
        ("Id", "Time", "Client", "Endpoint", "Version", "Status", "Rows", "µs"),
        ((r["id"], moment(r["time"]), r["client"], r["endpoint"], r["version"], r["status"], r["rows"],
          r["latency"]["total_us"]) for r in found),
        "No prediction matches.",
    )  # fmt: skip


def _items_table(found: list[Json]) -> None:
    print_table(
        ("Id", "Time", "Client", "Endpoint", "Version", "Outputs", "Outcome"),
        ((r["id"], moment(r["time"]), r["client"], r["endpoint"], r["version"], _short(r["outputs"]),
          "" if r["outcome"] is None else _short(r["outcome"]["value"])) for r in found),
        "No item matches.",
    )  # fmt: skip


def _quarantined_table(found: list[Json]) -> None:
    print_table(
        ("Id", "Time", "Reason", "Kept", "Client", "Endpoint", "Version", "Status"),
        ((r["id"], moment(r["time"]), r["reason"], size_text(r["raw_bytes"]), r["client"], r["endpoint"],
          r["version"], r["status"]) for r in found),
        "Nothing is quarantined.",
    )  # fmt: skip


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"


@app.command()
def count(
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    subject: Subject = None,
    outcome: Outcome = None,
    items: Items = False,
    with_archive: WithArchive = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Count records.

    Example: `modelyard predictions count --client acme --since 24h`
    """
    wanted = filters(model, version, client, endpoint, status, since, until, subject, outcome, items,
                     with_archive=with_archive)  # fmt: skip
    with backend(data, server, key) as work:
        number = work.count_predictions(wanted)
    if as_json:
        print_json({"count": number})
    else:
        say(str(number))


@app.command()
def show(
    prediction_id: Id,
    raw: Annotated[bool, typer.Option("--raw", help="Also what was kept undecoded, as base64.")] = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Show one record whole, as JSON.

    Example: `modelyard predictions show 1f3a5c7e9b2d4f600000000001`
    """
    with backend(data, server, key) as work:
        record = work.prediction(prediction_id, raw)
    _print_whole(record, as_json)


def _print_whole(value: Json, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        say(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())


@app.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet.")] = "jsonl",
    model: Model = None,
    version: Version = None,
    client: Client = None,
    endpoint: Endpoint = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    subject: Subject = None,
    outcome: Outcome = None,
    items: Items = False,
    with_archive: WithArchive = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Export records, oldest first; a file appears only when all of it is written.

    Example: `modelyard predictions export --format jsonl --out predictions.jsonl`
    """
    if form not in FORMS:
        raise CommandError(
            "usage_invalid", f"There is no format `{form}`.", field="--format", expected="jsonl, csv or parquet"
        )
    wanted = filters(model, version, client, endpoint, status, since, until, subject, outcome, items,
                     with_archive=with_archive)  # fmt: skip
    lines = form != "parquet"
    with backend(data, server, key) as work:
        total = work.count_predictions(wanted) if out is not None and lines else None
        with written(out) as file, progress("Exporting", total, not lines, as_json or out is None) as done:
            for piece in work.export_predictions(wanted, form):
                file.write(piece)
                done(piece.count(b"\n") if lines else len(piece))
    if out is not None and as_json:
        print_json({"out": str(out), "format": form, "size_bytes": out.stat().st_size})
    elif out is not None:
        say(f"Exported to {out}.")


@app.command()
def outcome(
    prediction_id: Id,
    value: Annotated[str, typer.Argument(help="What came true: JSON, or a text.")],
    item: Annotated[int, typer.Option("--item", min=0, help="Of which item of the request.")] = 0,
    at: Annotated[str | None, typer.Option("--at", help="Since when: ISO 8601, or a duration ago.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Say what came true of a prediction. Another value later is a correction; the first stays on record.

    Example: `modelyard predictions outcome 1f3a5c7e9b2d4f600000000001 '"churned"'`
    """
    from modelyard.http.forms.asking import typed_value

    said: Json = {"value": typed_value(value), "item": item, **({} if at is None else {"at": at})}
    with backend(data, server, key) as work:
        stored = work.give_outcome(prediction_id, said)
    if as_json:
        print_json(stored)
        return
    done = f"Revision {stored['revision']} of {stored['id']}" if stored["created"] else f"{stored['id']} has it already"
    say(f"{done}." if stored["joined"] else f"{done}; its record is still on its way into the log.")


@app.command()
def outcomes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines of id, value, and perhaps item and at.")],
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Say what came true of many predictions; each line is stored or refused on its own.

    Example: `modelyard predictions outcomes labels.jsonl`
    """
    total: Json = {"stored": 0, "waiting": 0, "refused": 0, "results": []}
    with backend(data, server, key) as work:
        for lines in _pieces(file):
            answer = work.give_outcomes(lines)
            before = len(total["results"])
            total["results"] += [{**one, "index": one["index"] + before} for one in answer["results"]]
            for name in ("stored", "waiting", "refused"):
                total[name] += answer[name]
    if as_json:
        print_json(total)
    else:
        for one in total["results"]:
            if one["error"] is not None:
                say(f"Outcome {one['index'] + 1}: {one['error']['error']}")
        say(f"{total['stored']} stored ({total['waiting']} ahead of their records), {total['refused']} refused.")
    if total["refused"]:
        raise typer.Exit(1)


def _pieces(path: Path) -> list[bytes]:
    """The file's lines, as many together as one request takes."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise CommandError("file_unreadable", f"`{path}` cannot be read: {error.strerror}.", field="FILE") from None
    pieces: list[bytes] = []
    gathered: list[bytes] = []
    size_bytes = 0
    for line in lines:
        if gathered and (size_bytes + len(line) > OUTCOMES_PER_REQUEST_BYTES or len(gathered) == PAGE):
            pieces.append(b"".join(gathered))
            gathered, size_bytes = [], 0
        gathered.append(line)
        size_bytes += len(line)
    return [*pieces, b"".join(gathered)] if gathered else pieces
