"""Checks can fail: a property is broken in the sources, the stack is planned again, and the named check must notice."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from checks import CHECKS
from infraproof.catalogue import EVERY_MODULE, ROWS, Row
from infraproof.plan import Plan
from infraproof.planner import Planner
from infraproof.results import Results
from mutations import MUTATIONS, Mutation

SHORT = [mutation for mutation in MUTATIONS if mutation.short]
LONG = [mutation for mutation in MUTATIONS if not mutation.short]
WANTED = 40


@pytest.fixture(scope="session")
def begun(planner: Planner, request: pytest.FixtureRequest) -> dict[str, Future[Plan]]:
    """Every mutation that this session asks for, begun at once and planned two at a time."""
    chosen = [value for item in request.session.items if isinstance(value := params_of(item).get("mutation"), Mutation)]
    for mutation in chosen:
        planner.start(mutation.stack)
    return {mutation.name: planner.broken(mutation.stack, mutation.edits) for mutation in chosen}


def params_of(item: pytest.Item) -> dict[str, object]:
    """The parameters of a test, or none."""
    found: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return found


def caught(mutation: Mutation, planner: Planner, begun: dict[str, Future[Plan]], results: Results) -> None:
    """The check passes on the sound stack and fails on the broken one; both are kept for the report."""
    entry = CHECKS[mutation.check]
    sound = planner.plan(mutation.stack).plan
    assert entry.applies(sound), f"{mutation.check} doesn't apply to {mutation.stack.name}"
    assert entry.problems(sound) == []
    problems = entry.function(begun[mutation.name].result())
    results.add(
        "mutations",
        mutation.name,
        check=mutation.check,
        module=mutation.module,
        requirement=mutation.requirement,
        caught=bool(problems),
        problem=problems[0] if problems else "",
    )
    assert problems, f"{mutation.check} doesn't notice: {mutation.name}"


@pytest.mark.parametrize("mutation", SHORT, ids=lambda mutation: mutation.name)
def test_broken_stack_is_noticed(
    mutation: Mutation, planner: Planner, begun: dict[str, Future[Plan]], results: Results
) -> None:
    """One broken property in the sources fails exactly the check that was written for it."""
    caught(mutation, planner, begun, results)


@pytest.mark.infra_long
@pytest.mark.parametrize("mutation", LONG, ids=lambda mutation: mutation.name)
def test_every_broken_stack_is_noticed(
    mutation: Mutation, planner: Planner, begun: dict[str, Future[Plan]], results: Results
) -> None:
    """The rest of the mutations, in the long form."""
    caught(mutation, planner, begun, results)


def test_mutations_name_known_checks() -> None:
    """Each mutation names a check of the table, and each name is used once."""
    assert [mutation.name for mutation in MUTATIONS if mutation.check not in CHECKS] == []
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_mutations_break_every_module() -> None:
    """There are at least forty mutations, at least ten in the short form, over all twelve modules."""
    assert len(MUTATIONS) >= WANTED
    assert len(SHORT) >= 10
    assert set(EVERY_MODULE) - {mutation.module for mutation in MUTATIONS} == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_requirement_is_broken_once(row: Row) -> None:
    """Every row of the catalogue has a mutation, so that no requirement's checks are beyond doubt."""
    assert [mutation for mutation in MUTATIONS if mutation.requirement == row.id]
