"""`modelyard traffic`: which versions answer, in which shares."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import print_json, print_table
from modelyard.core.errors import InvalidRequestError

app = typer.Typer(no_args_is_help=True, help="Show or set the shares of an endpoint's versions.")

Endpoint = Annotated[str, typer.Argument(help="The endpoint; a model's first version makes one of its name.")]


@app.command()
def show(
    endpoint: Endpoint, data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False
) -> None:
    """Show the shares in percent.

    Example: `modelyard traffic show tree`
    """
    with backend(data, server, key) as work:
        _print(work.traffic(endpoint), as_json)


@app.command("set")
def set_(
    endpoint: Endpoint,
    weights: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", help="All shares; 100 together.")],
    revision: Annotated[
        int | None, typer.Option("--revision", min=1, help="Only if it is still at this one, as `show --json` said.")
    ] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Replace the shares, all at once. Of two operators who do so at the same moment one wins, the other is told.

    Example: `modelyard traffic set tree 1=90 2=10`
    """
    shares = parse_shares(weights)
    with backend(data, server, key) as work:
        _print(work.set_traffic(endpoint, shares, revision), as_json)


def parse_shares(texts: list[str]) -> dict[str, int]:
    """`["1=90", "2=10"]` as a mapping; InvalidRequestError("traffic_invalid")."""
    shares: dict[str, int] = {}
    for text in texts:
        version, _, share = text.rpartition("=")
        if not version or not share.isascii() or not share.isdigit() or len(share) > 3 or version in shares:
            raise InvalidRequestError(
                "traffic_invalid", f"`{text[:80]}` is not the share of one more version.", field="weights",
                expected="VERSION=PERCENT, each version once", got=text[:80], example="1=90 2=10",
            )  # fmt: skip
        shares[version] = int(share)
    return shares


def _print(endpoint: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
    else:
        rows = ((version, f"{share} %") for version, share in endpoint["weights"].items())
        print_table(("Version", "Share"), rows, "This endpoint sends traffic nowhere.")
