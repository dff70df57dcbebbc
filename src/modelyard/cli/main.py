"""`modelyard`: every command group is imported only when it is called, so that help comes at once."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from modelyard.cli.exits import Exit, exit_code, refusal_lines
from modelyard.core.errors import ModelyardError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("modelyard.cli.demo", "See the whole road on real data, in under a minute."),
    "serve": ("modelyard.cli.serve", "Start a server on a data folder."),
    "publish": ("modelyard.cli.publish", "Publish a model file or folder as a version."),
    "sign": ("modelyard.cli.signing.sign", "Sign a model file or folder."),
    "signer": ("modelyard.cli.signing.signer", "Make and show the keys that sign versions."),
    "convert": ("modelyard.cli.conversion.commands", "Convert a model to ONNX and compare the answers."),
    "models": ("modelyard.cli.models", "Show models and versions."),
    "traffic": ("modelyard.cli.traffic", "Show or set the shares of an endpoint's versions."),
    "keys": ("modelyard.cli.keys.commands", "Issue, list, change, rotate and revoke API keys."),
    "me": ("modelyard.cli.keys.me", "Show where the holder of a key stands."),
    "predict": ("modelyard.cli.predict", "Predict rows from a JSON, CSV or NPY file."),
    "predictions": ("modelyard.cli.predictions", "Read the prediction log."),
    "analytics": ("modelyard.cli.analytics", "Volumes, errors, latency and scores of the prediction log."),
    "audit": ("modelyard.cli.audit", "Read and check the log of changes."),
    "retention": ("modelyard.cli.retention", "Say how long records stay, hold them, delete them by subject."),
    "backup": ("modelyard.cli.backup.commands", "Back up a data folder, and check a backup."),
    "restore": ("modelyard.cli.backup.restore", "Restore a backup into a new data folder."),
    "copy": ("modelyard.cli.database.copy", "Copy everything to another database, and compare it there."),
    "migrate": ("modelyard.cli.database.migrate", "Show and run the steps of the database's schema."),
    "doctor": ("modelyard.cli.doctor", "Look at machine, folder and settings, with remedies."),
}
"""Module and one-line help of each command, in the order of the help."""
EXITS = "Exit codes: 0 done, 1 refused, 2 usage, 3 not found, 4 key, 5 conflict, 6 not now, 130 interrupted."
COMPLETION = ("install_completion", "show_completion")


class LazyCommands(TyperGroup):
    """The command groups; a module is imported when its command is called, not for the list of commands."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or a stand-in with its help for the list."""
        if cmd_name not in COMMANDS:
            return None
        module, help_text = COMMANDS[cmd_name]
        if self._listing:
            stand_in = typer.Typer()
            stand_in.command(name=cmd_name, help=help_text)(_nothing)
            return get_command(stand_in)
        return _command(import_module(module), cmd_name)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What the shell offers for a command's first letters, without importing any command."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help without importing any command."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def _command(module: Any, name: str) -> Any:
    """The module's `app`, or its function `<name>_command`."""
    found = getattr(module, "app", None)
    if found is None:
        found = typer.Typer()
        found.command()(getattr(module, f"{name}_command"))
    command: Any = get_command(found)
    command.name = name
    # The whole program's, at its root alone.
    command.params = [each for each in command.params if each.name not in COMPLETION]
    _tell_exits(command)
    return command


def _tell_exits(command: Any) -> None:
    """Every command's help ends with what its exit code means."""
    command.epilog = command.epilog or EXITS
    for inner in getattr(command, "commands", {}).values():
        _tell_exits(inner)


def _nothing() -> None:
    """Stands for a command that is only listed."""


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a trained model file to an audited production API.\n\nStart with `modelyard demo`.",
    epilog=EXITS,
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and end.", is_eager=True),
    timeout_s: float | None = typer.Option(
        None, "--timeout", metavar="SECONDS", envvar="MODELYARD_TIMEOUT_S", help="Longest wait for a server's answer."
    ),
    retries: int | None = typer.Option(
        None, "--retries", metavar="COUNT", envvar="MODELYARD_RETRIES", help="How often a busy server is asked again."
    ),
) -> None:
    """Modelyard."""
    for name, value in (("MODELYARD_TIMEOUT_S", timeout_s), ("MODELYARD_RETRIES", retries)):
        if value is not None:
            os.environ[name] = str(value)
    if version:
        from modelyard import __version__

        typer.echo(f"modelyard {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process. A refusal is one red line and an exit code (`cli/exits.py`); a
    traceback appears only with MODELYARD_DEBUG=1."""
    try:
        get_command(app).main(args=arguments, prog_name="modelyard")
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except ModelyardError as error:
        if _debugging():
            raise
        _say(*refusal_lines(error))
        sys.exit(exit_code(error))
    except BrokenPipeError:  # `modelyard predictions export | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.DONE)
    except Exception as error:
        if _debugging():
            raise
        _say(f"Something broke here: {type(error).__name__}: {str(error)[:300]}", "MODELYARD_DEBUG=1 shows where.")
        sys.exit(Exit.REFUSED)


def _say(sentence: str, remedy: str) -> None:
    typer.secho(f"error: {sentence}", fg="red", err=True)
    if remedy:
        typer.secho(f"       {remedy}", dim=True, err=True)


def _debugging() -> bool:
    return os.environ.get("MODELYARD_DEBUG") == "1"


if __name__ == "__main__":
    main()
