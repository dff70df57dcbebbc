"""Runs the Terraform program named by TERRAFORM_CLI in a copy of infra/, and turns its answers into values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
INFRA = REPOSITORY / "infra"
COMMAND_TIMEOUT_S = 1800.0
#: The stack keeps its state in S3. A plan for a test keeps none, so the copy overrides the backend, as Terraform's
#: own documentation of override files describes.
LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'


class TerraformError(AssertionError):
    """Terraform answered with an error that the test did not ask for; the message holds its diagnostics."""


@dataclass(frozen=True)
class Completed:
    """One finished command: exit code, wall time in seconds, standard output and the error diagnostics in it."""

    code: int
    seconds: float
    output: str
    errors: tuple[str, ...] = ()

    def checked(self, what: str) -> Completed:
        """Itself, or TerraformError naming `what` when the command failed."""
        if self.code != 0:
            raise TerraformError(f"{what} failed ({self.code}):\n" + ("\n".join(self.errors) or self.output[-4000:]))
        return self


@dataclass(frozen=True)
class Workspace:
    """A private copy of a Terraform tree with its own data folder, initialised once."""

    path: Path
    cli: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, chdir: str = ".", timeout_s: float = COMMAND_TIMEOUT_S) -> Completed:
        """Run one Terraform command; never raises for a non-zero exit code."""
        directory = self.path / chdir
        data = self.path.parent / f"{self.path.name}.data" / chdir.replace("/", "_")
        env = {**os.environ, "TF_IN_AUTOMATION": "1", "TF_DATA_DIR": str(data), **self.environment}
        started = time.monotonic()
        done = subprocess.run(
            [self.cli, f"-chdir={directory}", *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Completed(done.returncode, time.monotonic() - started, done.stdout, diagnostics(done.stdout))

    def init(self, *arguments: str, chdir: str = ".") -> None:
        """`terraform init`, raising TerraformError when it fails."""
        self.run("init", "-input=false", "-no-color", *arguments, chdir=chdir).checked("terraform init")

    def plan(self, *arguments: str, chdir: str = ".") -> tuple[Completed, dict[str, Any]]:
        """Plan and return the command and the plan as JSON ({} when the plan was refused)."""
        file = self.path.parent / f"{self.path.name}.plan"
        done = self.run("plan", "-json", "-input=false", f"-out={file}", *arguments, chdir=chdir)
        if done.code != 0:
            return done, {}
        return done, self.show(str(file), chdir=chdir)

    def show(self, *arguments: str, chdir: str = ".") -> dict[str, Any]:
        """`terraform show -json` of a plan file, or of the state when no file is named."""
        shown = self.run("show", "-json", *arguments, chdir=chdir).checked("terraform show")
        line = next(line for line in shown.output.splitlines() if line.startswith("{"))
        loaded: dict[str, Any] = json.loads(line)
        return loaded

    def variable_file(self, variables: Mapping[str, Any]) -> str:
        """Write the variables beside the copy and return the argument that names the file."""
        file = self.path.parent / f"{self.path.name}.tfvars.json"
        file.write_text(json.dumps(variables))
        return f"-var-file={file}"


def diagnostics(output: str) -> tuple[str, ...]:
    """The error diagnostics (`summary: detail`) in Terraform's line-delimited JSON output."""
    found = []
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        try:
            message = json.loads(line)
        except ValueError:
            continue
        diagnostic = message.get("diagnostic") or {}
        if diagnostic.get("severity") == "error":
            found.append(f"{diagnostic.get('summary', '')}: {' '.join(diagnostic.get('detail', '').split())}")
    return tuple(found)


def copy_of(source: Path, target: Path, cli: str, environment: Mapping[str, str] | None = None) -> Workspace:
    """Copy a Terraform tree without its caches, give it a local backend and initialise it."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*"))
    (target / "backend_override.tf").write_text(LOCAL_BACKEND)
    workspace = Workspace(target, cli, dict(environment or {}))
    workspace.init()
    return workspace


@contextmanager
def patched(file: Path, text: str) -> Iterator[None]:
    """Give a file other contents for the duration of the block, then restore it byte for byte."""
    before = file.read_bytes()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_bytes(before)
