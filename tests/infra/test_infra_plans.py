"""Every combination is planned from an empty state, and every plan passes every check, by requirement identifier."""

from __future__ import annotations

import re

import pytest
from checks import CHECKS, of_requirement
from infraproof.catalogue import ROWS, Row
from infraproof.combinations import EVERY_STACK, PRODUCTION, WITH_IMAGE, Stack, in_the_long_form
from infraproof.plan import Plan
from infraproof.planner import Planner
from infraproof.results import Results
from infraproof.terraform import REPOSITORY

MAPPING = REPOSITORY / "docs" / "requirements-mapping.md"


@pytest.mark.parametrize("stack", [*WITH_IMAGE, *in_the_long_form(*EVERY_STACK[9:])], ids=lambda stack: stack.name)
def test_every_stack_plans_and_passes_every_check(stack: Stack, planner: Planner, results: Results) -> None:
    """A plan from an empty state has resources, and no check finds a problem in it."""
    planned = planner.plan(stack)
    found = {entry.id: entry.problems(planned.plan) for entry in CHECKS.values()}
    failed = {name: problems for name, problems in found.items() if problems}
    applied = [entry.id for entry in CHECKS.values() if entry.applies(planned.plan)]
    results.add(
        "plans",
        stack.name,
        resources=len(planned.plan.resources),
        plan_s=round(planned.seconds, 1),
        checks=len(applied),
        checks_failed=len(failed),
    )
    assert planned.plan.resources
    assert not failed, "\n".join(f"{name}: {problem}" for name, problems in failed.items() for problem in problems)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_requirement_has_a_check(row: Row) -> None:
    """Every row of the catalogue that the infrastructure answers has at least one check."""
    assert of_requirement(row.id), f"no check answers {row.id}"


def test_every_check_applies_somewhere() -> None:
    """No check is idle: each one applies to at least one of the stacks; where it does, only variables say."""
    plans = [Plan((), stack.variables, {}, {}, ()) for stack in (*WITH_IMAGE, PRODUCTION)]
    idle = [entry.id for entry in CHECKS.values() if not any(entry.applies(plan) for plan in plans)]
    assert not idle


def test_every_check_states_its_promise() -> None:
    """Each check's docstring is a sentence that reports can print."""
    assert [entry.id for entry in CHECKS.values() if not entry.promise.endswith(".")] == []


def test_checks_answer_only_known_requirements() -> None:
    """A check names a row of the catalogue, so that a mistyped identifier can't hide a gap."""
    known = {row.id for row in ROWS}
    assert {entry.requirement for entry in CHECKS.values()} <= known


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_mapping_names_every_check(row: Row) -> None:
    """The mapping of requirements names, in the row of each, exactly the checks that answer it."""
    line = next(line for line in MAPPING.read_text().splitlines() if line.startswith(f"| {row.id} |"))
    named = re.findall(r"`(\w+)`", line.split(" | ")[-1])
    assert sorted(named) == sorted(entry.name for entry in of_requirement(row.id))
