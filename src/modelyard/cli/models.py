"""`modelyard models`: what is published."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import moment, print_facts, print_json, print_table, shares, size_text
from modelyard.cli.terminal.waterfall import print_waterfall

HELD_BY = {"worker": "each worker", "shared_process": "one process for all workers", "jail": "a jail in each worker"}
"""What a running server says of a version's memory."""
SIGNED_BY = {"openssf-key": " (OpenSSF bundle)", "openssf-certificate": " (OpenSSF bundle, by certificate)"}
"""How a version was signed, where not by `modelyard.sig`."""

app = typer.Typer(no_args_is_help=True, help="Show models and versions.")


@app.command("list")
def list_(data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False) -> None:
    """List the models, their versions and traffic.

    Example: `modelyard models list`
    """
    with backend(data, server, key) as work:
        found = work.models()
    if as_json:
        print_json({"models": found})
        return
    print_table(
        ("Model", "Format", "Versions", "Traffic"),
        ((m["name"], m["format"], _versions(m), shares(m["traffic"])) for m in found),
        "No model is published yet. `modelyard publish NAME FILE` does it.",
    )


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Option("--version", help="One version, in full.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Show a model and its versions, or all that is known of one version.

    Example: `modelyard models show tree --version 2`
    """
    with backend(data, server, key) as work:
        found = work.model(model) if version is None else work.version(model, version)
    if as_json:
        print_json(found)
    elif version is None:
        columns = ("Version", "Format", "Size", "Traffic", "Created", "Digest")
        print_table(columns, (_row(found, version) for version in found["versions"]), "")
    else:
        print_version(found)


def print_version(found: dict[str, Any]) -> None:
    """A version for people."""
    signature = found["signature"]
    print_facts({
        "Model": found["model"], "Version": found["version"], "Format": found["format"],
        "Size": size_text(found["size_bytes"]), "Created": found["created_at"], "Digest": found["digest"],
        "Inputs": "\n".join(map(_tensor, signature["inputs"])),
        "Outputs": "\n".join(map(_tensor, signature["outputs"])),
        "Metrics": found["metrics"], "Redacted": found["redaction"], "Signed by": _signer(found["signing"]),
        "Held by": HELD_BY.get(found.get("held_by", "")),
    })  # fmt: skip


def _signer(signing: dict[str, Any]) -> str:
    """Who signed, and whether that counts; nothing of an unsigned version."""
    if signing["signer"] is None:
        return ""
    how = SIGNED_BY.get(signing["method"], "")
    return f"{signing['signer']}{how}{'' if signing['trusted'] else ' (not trusted here)'}"


def _tensor(spec: dict[str, Any]) -> str:
    named = len(spec["columns"]) or len(spec["labels"])
    return f"{spec['name']} {spec['datatype']} {list(spec['shape'])}" + (f", {named} names" if named else "")


@app.command()
def timeline(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[
        str | None, typer.Option("--version", help="The version. Default: the one with traffic.")
    ] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Show how the workers of a running server loaded a version, step by step.

    Example: `modelyard models timeline tree --version 2`
    """
    with backend(data, server, key) as work:
        chosen = version or _with_traffic(work.model(model))
        loads = work.version(model, chosen)["loads"]
    if as_json:
        print_json({"model": model, "version": chosen, "loads": loads})
    else:
        print_waterfall(loads, f"No worker has loaded version {chosen} of {model}; is a server running here?")


def _with_traffic(model: dict[str, Any]) -> str:
    """The version with the largest share, else the newest."""
    shares_of: dict[str, int] = model["traffic"]
    return max(shares_of, key=lambda version: shares_of[version]) if shares_of else str(model["latest"])


@app.command()
def revive(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version.")],
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Load a version again that was taken out because workers died in its run.

    Example: `modelyard models revive tree 2`
    """
    with backend(data, server, key) as work:
        done = work.revive(model, version)
    if as_json:
        print_json(done)
    else:
        print_facts({"Model": model, "Version": version, "Revived": "yes" if done["revived"] else "it was not out"})


def _versions(model: dict[str, Any]) -> str:
    """The versions; those that are not served say so."""
    ill = model.get("unhealthy", ())
    return " ".join(f"{version} (unhealthy)" if version in ill else version for version in model["versions"])


def _row(model: dict[str, Any], version: dict[str, Any]) -> tuple[str, ...]:
    about = (version["version"], version["format"], size_text(version["size_bytes"]))
    return (*about, _share(model, version["version"]), moment(version["created_at"]), version["digest"][:12])


def _share(model: dict[str, Any], version: str) -> str:
    share = model["traffic"].get(version)
    return "" if share is None else f"{share} %"
