"""Writes docs/infra-proof.md from the figures that the tests of the last run kept as JSON.

Usage: python tests/infra/proof_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from checks import CHECKS, of_requirement
from emulation.drift import FORGOTTEN
from emulation.proofs import LEFT_TO_PLANS
from infraproof.catalogue import ROWS, Row
from infraproof.results import Results
from infraproof.terraform import REPOSITORY
from mutations import MUTATIONS

PAGE = REPOSITORY / "docs" / "infra-proof.md"
GAP = "not run"
HEAD = """# What the tests of infra/ prove, in figures

This page is written by `make infra-proof` from what `make infra-test-long` measured. Plans are made offline from an
empty state; applies run through the real provider against an emulator of the AWS API on the same machine, so seconds
say how long a proof takes, not how long AWS does. What only an account can show is listed in `infra/README.md`.
"""


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return (
        "\n".join(lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows])
        + "\n"
    )


def combination_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a planned stack, with what its apply showed where it was applied."""
    applied = {name.removesuffix("+emulated"): row for name, row in results.read("applied").items()}
    rows = []
    for name, plan in results.read("plans").items():
        proof = applied.get(name, {})
        seconds = proof.get("seconds", {})
        applies = [seconds[step] for step in ("apply without image", "apply with image") if step in seconds]
        rows.append(
            (
                name,
                plan["resources"],
                plan["plan_s"],
                plan["checks"],
                plan["checks_failed"],
                plan.get("checkov_failed", "-"),
                " + ".join(str(round(value)) for value in applies) or "-",
                len(proof["drift"]) if "drift" in proof else "-",
                len(proof["after_release"]) if "after_release" in proof else "-",
                {True: "yes", False: "no"}.get(proof.get("destroy_clean", ""), "-"),
            )
        )
    return rows


def addresses(row: Row, results: Results) -> str:
    """The addresses that answer a requirement, over all stacks."""
    found = {address for stack in results.read("addresses").values() for address in stack["found"]}
    types = {f"aws_{name}" for name in row.resources}
    chosen = sorted(a for a in found if a.split(".")[-2] in types)
    return "<br>".join(f"`{address}`" for address in chosen) or "the wiring itself"


def requirement_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a requirement: modules, addresses, checks, and what breaks them."""
    outcomes = results.read("mutations")
    rows = []
    for row in ROWS:
        broken = [m for m in MUTATIONS if m.requirement == row.id]
        told = [f"{m.name} ({verdict(outcomes.get(m.name))})" for m in broken]
        checks = "<br>".join(f"`{entry.id}`" for entry in of_requirement(row.id))
        rows.append((row.id, row.requirement, ", ".join(row.modules), addresses(row, results), checks, "; ".join(told)))
    return rows


def verdict(outcome: dict[str, Any] | None) -> str:
    """Whether a mutation was caught, or that it wasn't run."""
    return GAP if outcome is None else "caught" if outcome["caught"] else "NOT caught"


def readback_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a question to the account."""
    rows = []
    for name, row in results.read("readback").items():
        stack, _, test = name.partition(" ")
        rows.append((stack.removesuffix("/image"), f"`{test}`", row["promise"], "yes" if row["passed"] else "NO"))
    return rows


def held(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a protected stack still held after the destroy."""
    return len(row["models"]), len(row["databases"]), row["records"]


def page(results: Results) -> str:
    """The whole page."""
    outcomes = results.read("mutations")
    caught = sum(1 for m in MUTATIONS if outcomes.get(m.name, {}).get("caught"))
    applied = results.read("applied")
    parts = [
        HEAD,
        "## Combinations\n",
        f"{len(CHECKS)} checks of our own; each plan is put through those that apply to it.\n",
        table(
            (
                "stack",
                "resources",
                "plan s",
                "checks",
                "failed",
                "checkov failed",
                "apply s (without + with image)",
                "drift after apply",
                "after a release",
                "destroy clean",
            ),
            combination_rows(results),
        ),
        "## Requirements\n",
        f"{len(MUTATIONS)} mutations break one property of the sources each; {len(outcomes)} of them were planned in "
        f"the last run, {caught} were caught by the named check.\n",
        table(
            ("id", "requirement", "modules", "main resource addresses", "checks", "mutations"),
            requirement_rows(results),
        ),
        "## Read back over the AWS API\n",
        "Asked of the emulated account, not of the state.\n",
        table(("stack", "test", "promise", "passed"), readback_rows(results)),
        "## Protected data\n",
        "`terraform destroy` of a stack with deletion protection, a model in its bucket and a record in its table: "
        "refused, and what it held is still there.\n",
        GAP + " since the test was last changed\n"
        if not results.read("protected")
        else table(
            ("stack", "refused", "said", "models left", "databases left", "records left"),
            [
                (name, *({True: "yes", False: "NO"}[row["refused"]], "; ".join(row["said"])), *held(row))
                for name, row in results.read("protected").items()
            ],
        ),
        "## Applied, and what was not\n",
        "A resource counts as applied when the emulator took its create call and its state holds more than a schema.\n",
        table(
            ("stack", "resources in the state", "made by a call on record"),
            [
                (name.removesuffix("+emulated"), row["resources"], row["proven"])
                for name, row in applied.items()
                if "proven" in row
            ],
        ),
        "Arguments that a second plan shows as changed only because the emulator forgets them (they aren't counted as "
        "drift above):\n",
        table(
            ("argument", "accepted by the emulator as"),
            [(f"`{k}.{a}`", f"`{name}`") for (k, a), name in FORGOTTEN.items()],
        ),
        "Not shown by a call on the emulator:\n",
        table(("address", "reason"), [(f"`{name}`", row["reason"]) for name, row in results.read("unproven").items()]),
        "Applied with the other value of a variable, so proven by plans, checks and mutations only:\n",
        table(("type", "reason"), [(f"`{name}`", reason) for name, reason in LEFT_TO_PLANS.items()]),
        "The arguments that only provider 6 has (blue-green deployment, its listener rules and target groups, the "
        "integration target) reach no emulator: each has a plan check and a mutation above.\n",
        "## Refusals\n",
        table(
            ("case", "variables", "sentence"),
            [(name, f"`{row['variables']}`", row["sentence"]) for name, row in results.read("refusals").items()],
        ),
        "## Module tests\n",
        table(
            ("module", "tests", "failed"),
            [(name, row["tests"], row["failed"]) for name, row in results.read("modules").items()],
        ),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(Results()))
