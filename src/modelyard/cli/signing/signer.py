"""`modelyard signer`: the keys that sign versions."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.signing.files import write_private
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_facts, print_json, say
from modelyard.core.errors import CommandError
from modelyard.models.signing.keys import (
    KEY_BYTES,
    MAX_PEM_BYTES,
    key_from_seed,
    key_id,
    private_pem,
    public_bytes,
    public_line,
    public_pem,
    read_private,
    read_public,
)

app = typer.Typer(no_args_is_help=True, help="Make and show the keys that sign versions.")

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A PEM file with a signing key.")]


@app.command()
def create(file: KeyFile, as_json: AsJson = False) -> None:
    """Make a key pair: FILE holds the private key, FILE.pub the public one.

    Give servers the public key, in `models.trusted_signers`; keep the private one where models are trained.

    Example: `modelyard signer create signer.pem`
    """
    made = key_from_seed(secrets.token_bytes(KEY_BYTES))
    public = public_bytes(made)
    write_private(file, private_pem(made))
    open_half = file.with_name(file.name + ".pub")
    open_half.write_bytes(public_pem(public))
    _show({"private_key": str(file), "public_key": str(open_half)}, public, as_json)
    if not as_json:
        say("Keep the private key to yourself: whoever has it can sign.")


@app.command()
def show(file: KeyFile, as_json: AsJson = False) -> None:
    """Show a key's id and its public half as one line, from a private or public PEM file.

    Example: `modelyard signer show signer.pem.pub`
    """
    try:
        with file.open("rb") as opened:
            pem = opened.read(MAX_PEM_BYTES)
        public = public_bytes(read_private(pem)) if b" PRIVATE KEY" in pem else read_public(pem.decode().strip())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError("file_unreadable", f"`{file}` cannot be read as a key: {why}.", field="FILE") from None
    _show({}, public, as_json)


def _show(files: dict[str, str], public: bytes, as_json: bool) -> None:
    said = {**files, "signer": key_id(public), "trusted_signers": public_line(public)}
    if as_json:
        print_json(said)
        return
    named = {"Private key": files.get("private_key"), "Public key": files.get("public_key")}
    print_facts({**named, "Signer": said["signer"], "models.trusted_signers": said["trusted_signers"]})
