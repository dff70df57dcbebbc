"""`modelyard publish`: a model file becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.backends import backend, data_folder
from modelyard.cli.models import print_version
from modelyard.cli.signing.files import is_signed, signed_source
from modelyard.cli.terminal.files import read_json_object
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import print_json, progress, say
from modelyard.core.errors import CommandError
from modelyard.models.signing.statement import OVERRIDES_FILE

app = typer.Typer()


@app.command()
def publish(
    name: Annotated[str, typer.Argument(help="The model.")],
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="What was trained.")],
    version: Annotated[str | None, typer.Option("--version", help="Its name. Default: the next number.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="JSON file with training metrics.", metavar="FILE")] = None,
    example: Annotated[Path | None, typer.Option(help="JSON request that must work.", metavar="FILE")] = None,
    sign: Annotated[Path | None, typer.Option(help="Sign it with this private key, PEM.", metavar="KEY")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Publish a model file or folder; it is parsed, loaded and run in a process of its own before the version exists.

    A model's first version gets all traffic of the endpoint of its name; later ones get traffic when you say so.
    Example: `modelyard publish tree model.onnx --metrics metrics.json`
    """
    check_source(source)
    _check_sign(source, sign, metrics, example)
    more = [None if path is None else read_json_object(path) for path in (metrics, example)]
    size_bytes = sum(p.stat().st_size for p in ([source] if source.is_file() else source.rglob("*")) if p.is_file())
    with (
        signed_source(source, sign) as whole,
        backend(data, server, key) as work,
        progress(f"Publishing {name}", size_bytes, True, as_json) as sent,
    ):
        made = work.publish(name, whole, version, more[0], more[1], sent)
    if as_json:
        print_json(made)
        return
    print_version(made)
    say(_next_step(made, data, server))


def check_source(source: Path) -> None:
    """CommandError("file_unreadable") if there is nothing to read."""
    if not source.exists():
        raise CommandError("file_unreadable", f"There is no file or folder `{source}`.", field="FILE_OR_FOLDER")


def _check_sign(source: Path, key: Path | None, metrics: Path | None, example: Path | None) -> None:
    """CommandError("usage_invalid") where something would travel beside what is signed."""
    if (key is not None or is_signed(source)) and (metrics or example):
        raise CommandError(
            "usage_invalid",
            f"What is signed comes as it is: say metrics and example in `{OVERRIDES_FILE}`, then they are signed too.",
            field="--metrics" if metrics else "--example",
        )


def _next_step(made: dict[str, Any], data: Path | None, server: str | None) -> str:
    name, version = made["model"], made["version"]
    if not made["created"]:
        return f"The same bytes are there already as version {version} of {name}; nothing was changed."
    where = f" --server {server}" if server else "" if data is None else f" --data {data_folder(data)}"
    return f"Published. `modelyard traffic show {name}{where}` says who gets it."
