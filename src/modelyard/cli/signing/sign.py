"""`modelyard sign`: a signature for a file or folder, where it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.publish import check_source
from modelyard.cli.signing.files import make_signature, private_key, signature_path
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_facts, print_json
from modelyard.core.errors import CommandError
from modelyard.models.signing.keys import key_id, public_bytes


def sign_command(
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="What will be published.")],
    key: Annotated[Path, typer.Option("--key", help="The private key, PEM.", metavar="FILE")],
    as_json: AsJson = False,
) -> None:
    """Sign a model file or folder; the signature is written beside the file, or into the folder.

    `modelyard publish` takes it along. What is signed are the hashes of all files, `modelyard.json` included.

    Example: `modelyard sign model.onnx --key signer.pem`
    """
    check_source(source)
    made = private_key(key)
    content = make_signature(source, made)
    place = signature_path(source)
    try:
        place.write_bytes(content)
    except OSError as error:
        raise CommandError(
            "file_unreadable", f"`{place}` cannot be written: {error.strerror}.", field="FILE_OR_FOLDER"
        ) from None
    said = {"signature": str(place), "signer": key_id(public_bytes(made))}
    if as_json:
        print_json(said)
    else:
        print_facts({"Signature": said["signature"], "Signer": said["signer"]})
