"""Checks can fail: a property is broken in the sources, the stack is planned again, and the named check must notice."""

from __future__ import annotations

import os
from concurrent.futures import Future
from random import Random

import pytest
from checks import CHECKS
from infraproof.catalogue import EVERY_MODULE, ROWS, Row
from infraproof.combinations import WITH_IMAGE
from infraproof.plan import Plan
from infraproof.planner import Planner
from infraproof.results import Results
from infraproof.sources import tree_digest
from infraproof.terraform import INFRA
from mutations import MUTATIONS, Mutation
from mutations.registry import BARE

WANTED, SAMPLE = 40, 8
#: Stacks that the short form plans anyway, so that a sample costs one plan each.
PLANNED = (*WITH_IMAGE, BARE)
#: Another sample with every change of the sources; MODELYARD_INFRA_SEED asks for one again.
SEED = os.environ.get("MODELYARD_INFRA_SEED", tree_digest(INFRA))
SHORT = sorted(Random(SEED).sample([m for m in MUTATIONS if m.stack in PLANNED], SAMPLE), key=MUTATIONS.index)
LONG = [mutation for mutation in MUTATIONS if mutation not in SHORT]


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
    """A sample: one broken property in the sources fails exactly the check that was written for it."""
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
    """There are at least forty mutations over all twelve modules."""
    assert len(MUTATIONS) >= WANTED
    assert set(EVERY_MODULE) - {mutation.module for mutation in MUTATIONS} == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_requirement_is_broken_once(row: Row) -> None:
    """Every row of the catalogue has a mutation, so that no requirement's checks are beyond doubt."""
    assert [mutation for mutation in MUTATIONS if mutation.requirement == row.id]
