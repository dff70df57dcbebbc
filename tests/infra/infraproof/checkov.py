"""Runs checkov offline, from its own environment, over plans as JSON, with the exceptions of infra/.checkov.yaml."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infraproof.terraform import INFRA, REPOSITORY

PROGRAM = Path(os.environ.get("CHECKOV_CLI", REPOSITORY / ".venv-checkov" / "bin" / "checkov"))
CONFIGURATION = INFRA / ".checkov.yaml"
TIMEOUT_S = 900


@dataclass(frozen=True)
class Verdict:
    """What checkov says of one plan."""

    passed: int
    failed: tuple[str, ...]


def verdicts(files: list[Path]) -> dict[str, Verdict]:
    """Check every plan file, one run each, and return name -> verdict."""
    return {file.stem: verdict(file) for file in files}


def verdict(file: Path) -> Verdict:
    """Check one plan file; AssertionError when checkov doesn't answer with a report."""
    command = [str(PROGRAM), "--config-file", str(CONFIGURATION), "-f", str(file), "-o", "json", "--quiet", "--compact"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=file.parent)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"checkov gave no report:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}") from None
    reports = report if isinstance(report, list) else [report]
    failed, passed = [], 0
    for part in reports:
        passed += part.get("summary", part).get("passed", 0)
        for entry in part.get("results", {}).get("failed_checks", []):
            failed.append(f"{entry['check_id']} {entry['resource']}: {entry['check_name']}")
    return Verdict(passed, tuple(failed))
