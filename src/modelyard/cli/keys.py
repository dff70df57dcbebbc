"""`modelyard keys`: issue, list and revoke API keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import moment, print_facts, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Issue, list and revoke API keys.")


@app.command()
def create(
    client: Annotated[str, typer.Argument(help="Who the key belongs to; made if new.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; repeatable. Default: predict.")] = None,
    models: Annotated[list[str] | None, typer.Option(help="Which models, as glob patterns; repeatable.")] = None,
    rate: Annotated[str | None, typer.Option(help="The client's rate, as count/unit (s, m, h, d).")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, from now on: 12h, 30d.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key; its text is shown this once.

    Example: `modelyard keys create acme --models 'tree*' --rate 100/s --expires 30d`
    """
    with backend(data, server, key) as work:
        made = work.create_key(client, scope or ["predict"], models or ["*"], rate, expires)
    if as_json:
        print_json(made)
        return
    print_facts({"Key": made["key"], "Id": made["id"], "Client": made["client"], "Scopes": " ".join(made["scopes"]),
                 "Models": " ".join(made["models"]), "Rate": made["rate"], "Expires": made["expires_at"]})  # fmt: skip
    say("Keep it now: only a hash of it is stored, nobody can show it again.")


@app.command("list")
def list_(data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False) -> None:
    """List all keys, newest first, without their texts.

    Example: `modelyard keys list`
    """
    with backend(data, server, key) as work:
        found = work.keys()
    if as_json:
        print_json({"keys": found})
        return
    print_table(
        ("Id", "Client", "Scopes", "Models", "Rate", "State", "Created", "Expires"),
        map(_row, found),
        "There is no key yet. `modelyard keys create NAME` makes one.",
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")],
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """End a key: every worker refuses it within a second.

    Example: `modelyard keys revoke 3fXkQ9aLm2Zp`
    """
    with backend(data, server, key) as work:
        ended = work.revoke_key(key_id)
    if as_json:
        print_json(ended)
    else:
        say(f"The key {ended['id']} of {ended['client']} is revoked.")


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    named = (key["id"], key["client"], " ".join(key["scopes"]), " ".join(key["models"]), key["rate"], key["state"])
    return (*named, moment(key["created_at"]), moment(key["expires_at"]))
