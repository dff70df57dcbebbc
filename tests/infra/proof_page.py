"""Writes docs/infra-proof.md from tests/infra/figures.json, where `make infra-test-long` keeps what it measured.

Usage: python tests/infra/proof_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from checks import CHECKS, of_requirement
from emulation.drift import FORGOTTEN, INVENTED
from emulation.proofs import KNOWN_GAPS, LEFT_TO_PLANS
from infraproof.catalogue import ROWS, Row
from infraproof.combinations import EVERY_STACK
from infraproof.results import KEPT, Results
from infraproof.sources import tree_blocks
from infraproof.terraform import INFRA, REPOSITORY
from mutations import MUTATIONS

PAGE = REPOSITORY / "docs" / "infra-proof.md"
GAP = "not run"
TOPICS = ("plans", "applied", "readback", "mutations", "protected", "refusals", "modules")
HEAD = """# What the tests of infra/ prove, in figures

This page is written by `make infra-proof` from `tests/infra/figures.json`, where `make infra-test-long` keeps what it
measured: a row that wasn't run again stays, and its last column says on which day it was measured. Plans are made
offline from an empty state; applies run through the real provider against an emulator of the AWS API on the same
machine, so seconds say how long a proof took beside other work on two cores, not how long AWS does. What only an
account can show is listed in `infra/README.md`.
"""


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return (
        "\n".join(lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows])
        + "\n"
    )


def combination_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a stack, with what its plan and its apply showed."""
    plans, applied = results.read("plans"), results.read("applied")
    names = sorted(stack.name for stack in EVERY_STACK)
    return [combination_row(n, plans.get(n, {}), applied.get(f"{n}+emulated", {})) for n in names]


def combination_row(name: str, plan: dict[str, Any], proof: dict[str, Any]) -> tuple[Any, ...]:
    """What was measured of one stack; a dash for what wasn't, or doesn't apply to it."""
    seconds = proof.get("seconds", {})
    applies = [seconds[step] for step in ("apply without image", "apply with image") if step in seconds]
    return (
        name,
        *(plan.get(field, "-") for field in ("resources", "plan_s", "checks", "checks_failed", "checkov_failed")),
        plan.get("at", GAP),
        " + ".join(str(round(value)) for value in applies) or "-",
        len(proof["drift"]) if "drift" in proof else "-",
        len(proof["after_release"]) if "after_release" in proof else "-",
        {True: "yes", False: "no"}.get(proof.get("destroy_clean", ""), "-"),
        proof.get("at", "-"),
    )


def addresses(row: Row) -> str:
    """The addresses that answer a requirement, as the modules' sources name them."""
    types = {f"aws_{name}" for name in row.resources}
    blocks = [
        block for block in tree_blocks(INFRA / "modules") if block.kind == "resource" and block.labels[0] in types
    ]
    chosen = sorted({f"module.{block.file.parent.name}.{'.'.join(block.labels)}" for block in blocks})
    return "<br>".join(f"`{address}`" for address in chosen) or "the wiring itself"


def requirement_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a requirement: modules, addresses, checks, and what breaks them."""
    outcomes = results.read("mutations")
    rows = []
    for row in ROWS:
        broken = [m for m in MUTATIONS if m.requirement == row.id]
        told = [f"{m.name} ({verdict(outcomes.get(m.name))})" for m in broken]
        checks = "<br>".join(f"`{entry.id}`" for entry in of_requirement(row.id))
        rows.append((row.id, row.requirement, ", ".join(row.modules), addresses(row), checks, "; ".join(told)))
    return rows


def days(rows: list[dict[str, Any]]) -> str:
    """The days on which these rows were measured, first and last."""
    return " to ".join(sorted({min(found), max(found)})) if (found := [row["at"] for row in rows]) else GAP


def taken_over(results: Results) -> str:
    """A sentence about the rows that are known from an earlier page alone; empty when there are none."""
    rows = [row for topic in TOPICS for row in results.read(topic).values() if row.get("from") == "page"]
    return (
        f"The rows of {days(rows)} were taken over from the tables of this page as it was then, before figures were "
        "kept one by one.\n"
        if rows
        else ""
    )


def verdict(outcome: dict[str, Any] | None) -> str:
    """Whether a mutation was caught, or that it wasn't run."""
    return GAP if outcome is None else "caught" if outcome["caught"] else "NOT caught"


def readback_rows(results: Results) -> list[tuple[Any, ...]]:
    """One row a question to the account."""
    rows = []
    for name, row in results.read("readback").items():
        stack, _, test = name.partition(" ")
        passed = "yes" if row["passed"] else "NO"
        rows.append((stack.removesuffix("/image"), f"`{test}`", row["promise"], passed, row["at"]))
    return rows


def gap_rows(results: Results) -> list[tuple[Any, ...]]:
    """What no call is on record for: the known gaps, and what an apply left without one beside them."""
    unexpected = [row.get("unexpected", {}) for row in results.read("applied").values()]
    reasons = {**KNOWN_GAPS, **{address: reason for found in unexpected for address, reason in found.items()}}
    return [(f"`{address}`", reason) for address, reason in reasons.items()]


def held(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a protected stack still held after the destroy."""
    return len(row["models"]), len(row["databases"]), row["records"], row["at"]


def page(results: Results) -> str:
    """The whole page."""
    outcomes = [row for name, row in results.read("mutations").items() if name in {m.name for m in MUTATIONS}]
    caught = sum(1 for row in outcomes if row["caught"])
    applied = results.read("applied")
    parts = [
        HEAD,
        taken_over(results),
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
                "planned on",
                "apply s (without + with image)",
                "drift after apply",
                "after a release",
                "destroy clean",
                "applied on",
            ),
            combination_rows(results),
        ),
        "## Requirements\n",
        f"{len(MUTATIONS)} mutations break one property of the sources each; {len(outcomes)} of them were planned "
        f"({days(outcomes)}), {caught} were caught by the named check.\n",
        table(
            ("id", "requirement", "modules", "main resource addresses", "checks", "mutations"),
            requirement_rows(results),
        ),
        "## Read back over the AWS API\n",
        "Asked of the emulated account, not of the state. With DynamoDB, of the tables that a call made (see below).\n",
        table(("stack", "test", "promise", "passed", "on"), readback_rows(results)),
        "## Protected data\n",
        "`terraform destroy` of a stack with deletion protection, a model in its bucket and a record in its table of "
        "counters (the emulator makes no other; all three share one block): refused, and what it held is still there. "
        "The buckets' locks were taken out of the state before, because the emulator changes none while a bucket holds "
        "something, and the destroy would never have come to the bucket.\n",
        GAP + " since the test was last changed\n"
        if not results.read("protected")
        else table(
            ("stack", "refused", "said", "models left", "databases left", "records left", "on"),
            [
                (name, *({True: "yes", False: "NO"}[row["refused"]], "; ".join(row["said"])), *held(row))
                for name, row in results.read("protected").items()
            ],
        ),
        "## Applied, and what was not\n",
        "A resource counts as applied when the emulator took its create call and its state holds more than a schema.\n",
        table(
            ("stack", "resources in the state", "made by a call on record", "on"),
            [
                (name.removesuffix("+emulated"), row["resources"], row["proven"], row["at"])
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
        "Changed by a second plan only because the emulating provider makes a value up (no drift either):\n",
        table(("argument", "reason"), [(f"`{'.'.join(names)}`", reason) for names, reason in INVENTED.items()]),
        "Not shown by a call on the emulator:\n",
        table(("address", "reason"), gap_rows(results)),
        "Applied with the other value of a variable, so proven by plans, checks and mutations only:\n",
        table(("type", "reason"), [(f"`{name}`", reason) for name, reason in LEFT_TO_PLANS.items()]),
        "The arguments that only provider 6 has (blue-green deployment, its listener rules and target groups, the "
        "integration target) reach no emulator: each has a plan check and a mutation above.\n",
        "## Refusals\n",
        table(
            ("case", "variables", "sentence", "on"),
            [
                (name, f"`{row['variables']}`", row["sentence"], row["at"])
                for name, row in results.read("refusals").items()
            ],
        ),
        "## Module tests\n",
        table(
            ("module", "tests", "failed", "on"),
            [(name, row["tests"], row["failed"], row["at"]) for name, row in results.read("modules").items()],
        ),
    ]
    return "\n".join(part for part in parts if part)


if __name__ == "__main__":
    PAGE.write_text(page(Results(KEPT)))
