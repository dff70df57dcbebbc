"""Runs checkov offline, from its own environment, over plans as JSON, with the exceptions of infra/.checkov.yaml."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infraproof.plan import configured, without_keys
from infraproof.terraform import INFRA, REPOSITORY

PROGRAM = Path(os.environ.get("CHECKOV_CLI", REPOSITORY / ".venv-checkov" / "bin" / "checkov"))
CONFIGURATION = INFRA / ".checkov.yaml"
TIMEOUT_S = 900
#: Stands for the expressions of a dynamic block, which a plan's configuration doesn't show.
DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Verdict:
    """What checkov says of one plan."""

    passed: int
    failed: tuple[str, ...]


def completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A copy of a plan in which a value that the sources set, but only AWS will know, has a name instead of a gap.

    checkov reads a gap as "not set". Values that the sources don't set stay gaps: a missing key is still found.
    """
    plan: dict[str, Any] = json.loads(json.dumps(raw))
    expressions = configured(plan.get("configuration", {}).get("root_module", {}))
    values = {item["address"]: item.get("values", {}) for item in every(plan["planned_values"]["root_module"])}
    for change in plan.get("resource_changes", []):
        body, address = change["change"], change["address"]
        written = expressions.get(without_keys(address), {})
        for target in (body.get("after"), values.get(address)):
            if isinstance(target, dict):
                fill(target, body.get("after_unknown") or {}, written, address)
    return plan


def every(module: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every resource of a module and its children."""
    children = [item for child in module.get("child_modules", []) for item in every(child)]
    return [*module.get("resources", []), *children]


def fill(target: Any, unknown: Any, written: Any, name: str) -> None:
    """Put names into the gaps of one object where the sources write the argument, or make the block dynamically."""
    if not isinstance(target, dict) or not isinstance(unknown, Mapping):
        return
    for key, gap in unknown.items():
        source = written.get(key) if isinstance(written, Mapping) else written
        if gap is True and source is not None:
            target[key] = f"known-after-apply:{name}.{key}"
        elif isinstance(gap, list) and isinstance(target.get(key), list):
            sources = source if isinstance(source, list) else [DYNAMIC] * len(gap)
            for item, part, text in zip(target[key], gap, sources, strict=False):
                fill(item, part, text, f"{name}.{key}")


def verdict(file: Path) -> Verdict:
    """Check one plan file; AssertionError when checkov doesn't answer with a report."""
    copy = file.with_name(f"{file.stem}.completed.json")
    copy.write_text(json.dumps(completed(json.loads(file.read_text()))))
    command = [str(PROGRAM), "--config-file", str(CONFIGURATION), "-f", str(copy), "-o", "json", "--quiet", "--compact"]
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
