"""The commands of a backup: what they print, and their exit codes."""

from __future__ import annotations

from pathlib import Path

from cli_support import Run, parsed
from typer.testing import CliRunner

from modelyard.cli.exits import Exit, exit_code
from modelyard.cli.main import app
from modelyard.core.errors import CommandError

call = CliRunner()


def test_there_and_back(run: Run, tmp_path: Path) -> None:
    """Create, verify, restore, by text and as JSON; the key is there again."""
    assert run("keys", "create", "acme").exit_code == 0
    out, new = tmp_path / "b.tar", tmp_path / "new"
    made = parsed(run("backup", "create", "--out", str(out), "--json"))
    assert (made["counts"]["keys"], made["waiting"], made["files"]) == (1, 0, 3)
    found = parsed(call.invoke(app, ["backup", "verify", str(out), "--json"]))
    assert (found["sound"], found["findings"]) == (True, [])
    restored = call.invoke(app, ["restore", str(out), "--data", str(new)])
    assert restored.exit_code == 0
    assert "0 records, 0 versions, 1 keys" in restored.stdout
    (key,) = parsed(call.invoke(app, ["keys", "list", "--data", str(new), "--json"]))["keys"]
    assert key["client"] == "acme"


def test_findings_are_lines_and_end_with_one(run: Run, tmp_path: Path) -> None:
    """One line per finding, then the verdict; a second backup at the same place is a conflict."""
    run("keys", "create", "acme")
    out = tmp_path / "b"
    said = run("backup", "create", "--out", str(out))
    assert "Left out: spool" in said.stdout
    refused = run("backup", "create", "--out", str(out)).exception
    assert isinstance(refused, CommandError)
    assert exit_code(refused) == Exit.CONFLICT
    (out / "audit-head").unlink()
    (out / "redaction.key").write_bytes(b"short")
    found = call.invoke(app, ["backup", "verify", str(out)])
    assert found.exit_code == Exit.REFUSED
    lines = found.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["file_missing", "file_changed"]
    assert "NOT sound" in lines[-1]
