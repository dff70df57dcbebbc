"""Options that every command takes: where the data is, with which key, and whether a program reads along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data folder to work on. Default: as $MODELYARD_DATA or the file of $MODELYARD_CONFIG says.",
        metavar="DIR",
    ),
]
Server = Annotated[
    str | None, typer.Option("--server", help="Server to work with instead. Also MODELYARD_SERVER.", metavar="URL")
]
KeyText = Annotated[
    str | None, typer.Option("--key", help="API key for the server. Also MODELYARD_KEY.", metavar="KEY")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

Model = Annotated[str | None, typer.Option("--model", help="Only this model.")]
Version = Annotated[str | None, typer.Option("--version", help="Only this version.")]
Client = Annotated[str | None, typer.Option("--client", help="Only this client.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Only this endpoint.")]
Status = Annotated[str | None, typer.Option("--status", help="A status or class: 200, 4xx.")]
Since = Annotated[str | None, typer.Option("--since", help="From then on: ISO 8601, or a duration ago (15m, 2h, 7d).")]
Until = Annotated[str | None, typer.Option("--until", help="Before then: as --since.")]

Subject = Annotated[str | None, typer.Option("--subject", help="Only requests about this subject.")]
Outcome = Annotated[
    str | None, typer.Option("--outcome", help="has, none, or = and a value, such as =1.", metavar="has|none|=VALUE")
]
Items = Annotated[bool, typer.Option("--items", help="Items of requests instead of requests.")]

WithArchive = Annotated[
    bool, typer.Option("--with-archive", help="Days that left for `retention.archive_url` too; on a data folder.")
]


def filters(
    model: str | None,
    version: str | None,
    client: str | None,
    endpoint: str | None,
    status: str | None,
    since: str | None,
    until: str | None,
    subject: str | None = None,
    outcome: str | None = None,
    items: bool = False,
    quarantined: bool = False,
    with_archive: bool = False,
) -> dict[str, str]:
    """The filters that were given, by the names of `GET /v1/predictions`."""
    named = {
        "model": model, "version": version, "client": client, "endpoint": endpoint,
        "status": status, "since": since, "until": until, "subject": subject, "outcome": outcome,
        "items": "true" if items else None, "quarantined": "true" if quarantined else None,
        "with_archive": "true" if with_archive else None,
    }  # fmt: skip
    return {name: text for name, text in named.items() if text}
