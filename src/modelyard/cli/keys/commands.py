"""`modelyard keys`: issue, list, change, rotate and revoke API keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import moment, print_facts, print_json, print_table, say
from modelyard.core.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Issue, list, change, rotate and revoke API keys.")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]
Rate = Annotated[str | None, typer.Option(help="The client's rate, as count/unit (s, m, h, d).")]
Quota = Annotated[str | None, typer.Option(help="The client's predictions per UTC day, as count/day, or none.")]
Concurrency = Annotated[str | None, typer.Option(help="The client's predictions at the same time, or none.")]
Models = Annotated[list[str] | None, typer.Option(help="Which models the key may use, as glob patterns; repeatable.")]
ClientModels = Annotated[list[str] | None, typer.Option(help="Patterns that bound all keys of the client; repeatable.")]
OfClient = Annotated[str | None, typer.Option("--client", help="Only this client's.")]
UnusedSince = Annotated[str | None, typer.Option(help="Not used since: a duration ago (90d), or ISO 8601.")]
CreatedBefore = Annotated[str | None, typer.Option(help="Made before: as --unused-since.")]


@app.command()
def create(
    client: Annotated[str, typer.Argument(help="Who the key belongs to; made if new.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; repeatable. Default: predict.")] = None,
    models: Models = None,
    rate: Rate = None,
    quota: Quota = None,
    concurrency: Concurrency = None,
    client_models: ClientModels = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, from now on: 12h, 30d.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key; its text is shown this once.

    Example: `modelyard keys create acme --models 'tree*' --rate 100/s --quota 10000/day --expires 30d`
    """
    bounds = _given(quota=quota, concurrency=concurrency, client_models=client_models)
    with backend(data, server, key) as work:
        made = work.create_key(client, scope or ["predict"], models or ["*"], rate, expires, bounds)
    _show_once(made, as_json)


@app.command("list")
def list_(
    client: OfClient = None,
    unused_since: UnusedSince = None,
    created_before: CreatedBefore = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first, without their texts: all, or those that nobody used.

    Example: `modelyard keys list --unused-since 90d`
    """
    with backend(data, server, key) as work:
        found = work.keys(_given(client=client, unused_since=unused_since, created_before=created_before))
    if as_json:
        print_json({"keys": found})
        return
    print_table(
        ("Id", "Client", "Scopes", "Models", "Limits", "State", "Created", "Expires", "Last used"),
        map(_row, found),
        "There is no such key. `modelyard keys create NAME` makes one.",
    )


@app.command()
def update(
    key_id: KeyId,
    models: Models = None,
    rate: Rate = None,
    quota: Quota = None,
    concurrency: Concurrency = None,
    client_models: ClientModels = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's models and its client's limits; what isn't given is kept.

    Example: `modelyard keys update 3fXkQ9aLm2Zp --rate 50/s --quota none`
    """
    given = _given(models=models, rate=rate, quota=quota, concurrency=concurrency, client_models=client_models)
    if not given:
        raise CommandError("usage_invalid", "Say what to change.", field="--rate", example="--rate 50/s")
    with backend(data, server, key) as work:
        changed = work.change_key(key_id, given)
    if as_json:
        print_json(changed)
    else:
        _print_key(changed)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on: 1h, 7d.")] = "24h",
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Issue a successor with the same rights; the old key goes on for a while, then ends by itself.

    Example: `modelyard keys rotate 3fXkQ9aLm2Zp --overlap 24h`
    """
    with backend(data, server, key) as work:
        made = work.rotate_key(key_id, overlap)
    _show_once(made, as_json)
    if not as_json:
        say(f"The old key {key_id} goes on for {overlap}, then it ends by itself.")


@app.command()
def revoke(
    key_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The key's id; or say which by options.")] = None,
    client: OfClient = None,
    unused_since: UnusedSince = None,
    created_before: CreatedBefore = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which keys would end.")] = False,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """End a key, or many: every worker refuses them within a second.

    Example: `modelyard keys revoke 3fXkQ9aLm2Zp`, `modelyard keys revoke --client acme --dry-run`
    """
    selection = _given(client=client, unused_since=unused_since, created_before=created_before)
    if (key_id is None) == (not selection):
        raise CommandError(
            "usage_invalid", "Give a key's id, or say which keys by options, not both.", field="ID",
            expected="ID, or --client, --unused-since, --created-before",
        )  # fmt: skip
    if key_id is not None and dry_run:
        raise CommandError("usage_invalid", "--dry-run is for many keys.", field="--dry-run")
    with backend(data, server, key) as work:
        ended = work.revoke_key(key_id) if key_id is not None else work.revoke_keys(selection, dry_run)
    if as_json:
        print_json(ended)
    elif key_id is not None:
        say(f"The key {ended['id']} of {ended['client']} is revoked.")
    else:
        columns = ("Id", "Client", "State", "Created", "Last used")
        print_table(columns, map(_short_row, ended["revoked"]), "There is no such active key.")
        say(f"{len(ended['revoked'])} keys {'would be' if dry_run else 'are'} revoked.")


def _given(**named: Any) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value}


def _show_once(made: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    _print_key(made)
    say("Keep it now: only a hash of it is stored, nobody can show it again.")


def _print_key(key: Mapping[str, Any]) -> None:
    print_facts({"Key": key.get("key"), "Id": key["id"], "Client": key["client"], "Scopes": " ".join(key["scopes"]),
                 "Models": " ".join(key["models"]), "Limits": _limits(key), "Expires": key["expires_at"],
                 "Replaces": key["replaces"]})  # fmt: skip


def _limits(key: Mapping[str, Any]) -> str:
    """The client's bounds in one line."""
    bounds = [key["rate"] or "", key["quota"] or ""]
    bounds += [f"{key['concurrency']} at once"] if key["concurrency"] else []
    bounds += [f"only {' '.join(key['client_models'])}"] if key["client_models"] != ["*"] else []
    return ", ".join(filter(None, bounds))


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    state = f"{key['state']}, replaced by {key['replaced_by']}" if key["replaced_by"] else key["state"]
    named = (key["id"], key["client"], " ".join(key["scopes"]), " ".join(key["models"]), _limits(key), state)
    return (*named, *(moment(key[name]) for name in ("created_at", "expires_at", "last_used_at")))


def _short_row(key: Mapping[str, Any]) -> tuple[str, ...]:
    return (key["id"], key["client"], key["state"], moment(key["created_at"]), moment(key["last_used_at"]))
