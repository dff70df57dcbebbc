"""The long form: every combination and every preset applied from an empty account, without drift, and destroyed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from emulation.emulator import NoEmulatorError
from emulation.journey import AT_ONCE, Journey, journey
from emulation.proofs import record_applied, unexpected_leftovers
from infraproof.combinations import PRESET_STACKS, WITH_IMAGE, Stack
from infraproof.results import Results

pytestmark = pytest.mark.infra_long
STACKS = WITH_IMAGE + PRESET_STACKS


@pytest.fixture(scope="module")
def journeys(
    terraform_cli: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[Journey]]]:
    """The journeys of every stack that this session asks for, begun together and run a few at a time."""
    folder, pool = tmp_path_factory.mktemp("journeys"), ThreadPoolExecutor(AT_ONCE, thread_name_prefix="journey")
    chosen = {item.nodeid for item in request.session.items}
    asked = [stack for stack in STACKS if any(f"[{stack.name}]" in node and "goes" in node for node in chosen)]
    yield {
        stack.name: pool.submit(journey, stack, folder / f"stack{n}", terraform_cli) for n, stack in enumerate(asked)
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_every_stack_applies_without_drift_and_goes(
    stack: Stack, journeys: dict[str, Future[Journey]], results: Results
) -> None:
    """From an empty account: bootstrap, two applies, an empty plan, every resource made by a call, a clean destroy."""
    try:
        done = journeys[stack.name].result()
    except NoEmulatorError as reason:
        pytest.skip(str(reason))
    record_applied(results, done.applied)
    results.add("applied", done.applied.stack.name, destroy_s=round(done.gone.seconds), destroy_clean=done.left == ())
    assert done.applied.drift == []
    assert unexpected_leftovers(done.applied.unproven()) == {}
    assert done.closed
    assert done.rotating
    done.gone.checked("destroy")
    assert done.left == ()
