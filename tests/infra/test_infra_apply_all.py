"""The long form: every combination and every preset applied from an empty account, without drift, and destroyed."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from emulation.emulator import NoEmulatorError
from emulation.journey import Journey
from emulation.proofs import record_applied, unexpected_leftovers
from emulation.protected import MODEL, Kept
from emulation.release import RELEASED
from infraproof.combinations import PRESET_STACKS, PRODUCTION, READ_BACK, WITH_IMAGE, Stack, combination
from infraproof.results import Results

pytestmark = pytest.mark.infra_long
#: The one that is read back thing by thing is applied there (test_infra_apply.py).
STACKS = tuple(stack for stack in (*WITH_IMAGE, *PRESET_STACKS, PRODUCTION) if stack != READ_BACK)
PROTECTED = (combination("ecs-fargate", "postgres", None), combination("lambda", "dynamodb", None))


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_every_stack_applies_without_drift_and_goes(
    stack: Stack, journeys: dict[str, Future[Any]], results: Results
) -> None:
    """From an empty account: bootstrap, two applies, an empty plan, every resource made by a call, a clean destroy.

    Between the two last a release puts another image in; the plan after it is empty too, for releases own the image.
    """
    try:
        done: Journey = journeys[stack.name].result()
    except NoEmulatorError as reason:
        pytest.skip(str(reason))
    record_applied(results, done.applied)
    gone = {"destroy_s": round(done.gone.seconds), "destroy_clean": done.left == (), "said": done.gone.errors}
    results.add("applied", done.applied.stack.name, after_release=done.after_release, **gone)
    assert done.applied.drift == []
    assert unexpected_leftovers(done.applied.unproven()) == {}
    assert done.closed
    assert done.rotating
    assert (done.runs, done.after_release) == (RELEASED, ())
    done.gone.checked("destroy")
    assert done.left == ()


@pytest.mark.parametrize("protected", PROTECTED, ids=lambda stack: stack.name)
def test_destroy_refuses_protected_data(protected: Stack, journeys: dict[str, Future[Any]], results: Results) -> None:
    """With deletion protection a destroy fails, and the model, the database and the record are still there."""
    try:
        kept: Kept = journeys[protected.name].result()
    except NoEmulatorError as reason:
        pytest.skip(str(reason))
    said = sorted({error.partition(":")[0] for error in kept.refused.errors})
    held = {"models": kept.models, "databases": kept.databases, "records": kept.records}
    results.add("protected", protected.name, refused=kept.refused.code != 0, said=said, **held)
    assert kept.refused.code != 0
    relational = "postgres" in protected.name
    wanted = {"deleting AWS DynamoDB Table", "deleting S3 Bucket"} | (
        {"deleting RDS DB Instance"} if relational else set()
    )
    assert {text.partition(" (")[0] for text in said} == wanted
    assert any("BucketNotEmpty" in error for error in kept.refused.errors)
    assert kept.models == (MODEL,)
    assert kept.databases == (("available",) if relational else ())
    assert kept.records == 1
