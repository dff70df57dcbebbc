"""`modelyard signer`: the keys that sign versions, and whether one signed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.publish import check_source
from modelyard.cli.signing.files import signed_source, write_private
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_facts, print_json, say
from modelyard.core.clock import SystemClock
from modelyard.core.errors import CommandError
from modelyard.core.settings import ModelsSettings
from modelyard.models.signing.keys import (
    KEY_BYTES,
    key_from_seed,
    key_id,
    private_pem,
    public_bytes,
    public_line,
    public_pem,
    read_private,
    read_public,
)
from modelyard.models.signing.trust import Trust, demand_trusted
from modelyard.models.signing.trusted import MAX_SOURCE_BYTES, read_signers, trusted_signers
from modelyard.models.stage import hash_folder

app = typer.Typer(no_args_is_help=True, help="Make and show the keys that sign versions.")

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A PEM file with a key.")]


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
    """Show a key's id and what `models.trusted_signers` takes, from a private or public PEM file, or certificates.

    Example: `modelyard signer show signer.pem.pub`
    """
    try:
        with file.open("rb") as opened:
            pem = opened.read(MAX_SOURCE_BYTES + 1)
        public = public_bytes(read_private(pem)) if b" PRIVATE KEY" in pem else _ed25519(pem.decode().strip())
        others = () if public else sorted(read_signers(pem.decode().strip()).ids)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError("file_unreadable", f"`{file}` cannot be read as a key: {why}.", field="FILE") from None
    if public:
        _show({}, public, as_json)
        return
    said = {"signer": ", ".join(others), "trusted_signers": str(file.resolve())}
    if as_json:
        print_json(said)
    else:
        print_facts({"Signer": said["signer"], "models.trusted_signers": said["trusted_signers"]})


@app.command()
def check(
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="What is signed.")],
    trusted: Annotated[
        list[str], typer.Option("--trusted", help="Who is trusted, as in models.trusted_signers.", metavar="KEY")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a signature or an OpenSSF bundle (`model.sig`) as a server would that trusts these keys or certificates.

    Example: `modelyard signer check iris --trusted signer.pem.pub`
    """
    check_source(source)
    with signed_source(source, None) as whole:
        files = hash_folder(whole, ModelsSettings().max_version_bytes) if whole.is_dir() else []
        known = trusted_signers(tuple(trusted))
        found = Trust(known).examine_folder(whole, files, SystemClock().now())
    demand_trusted(found, "its signature is asked for")
    said = {"signer": found.signer, "method": found.method or "ed25519", "authority": found.authority}
    if as_json:
        print_json(said)
    else:
        print_facts({"Signer": said["signer"], "Method": said["method"], "Authority": said["authority"] or ""})


def _ed25519(text: str) -> bytes | None:
    """The 32 bytes of such a key; None for what is something else."""
    try:
        return read_public(text)
    except ValueError:
        return None


def _show(files: dict[str, str], public: bytes, as_json: bool) -> None:
    said = {**files, "signer": key_id(public), "trusted_signers": public_line(public)}
    if as_json:
        print_json(said)
        return
    named = {"Private key": files.get("private_key"), "Public key": files.get("public_key")}
    print_facts({**named, "Signer": said["signer"], "models.trusted_signers": said["trusted_signers"]})
