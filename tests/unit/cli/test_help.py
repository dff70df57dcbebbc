"""Help and completion: every command shows an example and its exit codes; the shell knows every command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from modelyard.cli.exits import Exit
from modelyard.cli.main import COMMANDS, EXITS, app


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
        return
    for word, each in inner.items():
        yield from leaves(f"{name} {word}", each)


ROOT: Any = get_command(app)
ALL = [leaf for name in COMMANDS for leaf in leaves(name, ROOT.get_command(None, name))]


@pytest.mark.parametrize(("name", "command"), ALL, ids=[name for name, _ in ALL])
def test_help_has_an_example(name: str, command: Any) -> None:
    """Each command's help says what it does, shows itself called, explains each option and ends with the exit codes."""
    assert f"modelyard {name}" in (command.help or ""), "no example"
    assert "Example" in command.help
    assert command.epilog == EXITS
    unexplained = [each.name for each in command.params if not getattr(each, "help", "") and each.name != "help"]
    assert unexplained == []


def test_exit_codes_are_all_named() -> None:
    """The line under each help names every exit code, and no other."""
    numbers = [int(part.split()[0]) for part in EXITS.removeprefix("Exit codes: ").rstrip(".").split(", ")]
    assert numbers == [int(code) for code in Exit]


def bash(line: str) -> list[str]:
    """What bash offers after Tab at the end of the line, by the script that the program prints."""
    words = line.split(" ")
    script = f"""
eval "$(modelyard --show-completion bash)"
COMP_WORDS=({" ".join(word or "''" for word in words)}); COMP_CWORD={len(words) - 1}
_modelyard_completion modelyard
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_completion_in_bash() -> None:
    """Commands, the commands of a group, and options are completed by bash itself."""
    assert set(bash("modelyard predict")) == {"predict", "predictions"}
    assert "revoke" in bash("modelyard keys re")
    assert {"--tls-cert", "--tls-key"} <= set(bash("modelyard serve --tls"))
    assert set(bash("modelyard ")) == set(COMMANDS)


def test_completion_is_light() -> None:
    """Pressing Tab imports neither a command nor a library of numbers."""
    env = {**os.environ, "COMP_WORDS": "modelyard ", "COMP_CWORD": "1", "_MODELYARD_COMPLETE": "complete_bash"}
    line = [sys.executable, "-X", "importtime", "-c", "from modelyard.cli.main import main; main()"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert set(COMMANDS) <= set(done.stdout.split())
    for name in ("numpy", "sqlalchemy", "fastapi", "modelyard.cli.keys"):
        assert f" {name}\n" not in done.stderr, name
