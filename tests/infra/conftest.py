"""Fixtures of the infrastructure's proof: a Terraform, plans made once a session, an emulator with a stack on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from emulation.applying import Applied, apply_from_nothing
from emulation.emulator import NoEmulatorError, serving
from emulation.readback import Account
from infraproof.combinations import EVERY_STACK, combination
from infraproof.planner import Planner
from infraproof.results import Results
from infraproof.terraform import REPOSITORY

PLAN_CACHE = REPOSITORY / "build" / "infra" / "plans"
HERE = Path(__file__).resolve().parent
APPLIED_IN_SHORT = combination("ecs-fargate", "postgres")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything below this folder is marked `infra`; the long form runs only when it is asked for by its marker."""
    wanted = "infra_long" in (config.getoption("-m") or "")
    mine = [item for item in items if HERE in item.path.parents]
    mine.sort(key=uses_the_applied_stack)
    items[:] = [item for item in items if item not in mine] + mine
    for item in mine:
        item.add_marker(pytest.mark.infra)
    if wanted:
        return
    late = [item for item in mine if item.get_closest_marker("infra_long")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


def uses_the_applied_stack(item: pytest.Item) -> bool:
    """True for tests that wait for the apply: they come last, so that the others use the time."""
    return "applied" in getattr(item, "fixturenames", ())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep what every read-back over the AWS API said."""
    outcome = yield
    if call.when == "call" and "account" in getattr(item, "fixturenames", ()) and isinstance(item, pytest.Function):
        promise = (item.function.__doc__ or "").strip()
        passed = outcome.get_result().passed  # type: ignore[attr-defined]
        Results().add("readback", item.name, promise=promise, passed=passed)


@pytest.fixture(scope="session")
def terraform_cli() -> str:
    """The program named by TERRAFORM_CLI (default `terraform`)."""
    cli = os.environ.get("TERRAFORM_CLI", "terraform")
    if shutil.which(cli) is None:
        pytest.skip(f"no Terraform: {cli!r} isn't a program; set TERRAFORM_CLI")
    return cli


@pytest.fixture(scope="session")
def planner(terraform_cli: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    """Plans stacks, two at a time; the plans of every combination are begun at once, so that tests find them made."""
    PLAN_CACHE.mkdir(parents=True, exist_ok=True)
    made = Planner(terraform_cli, tmp_path_factory.mktemp("plans"), PLAN_CACHE)
    for stack in EVERY_STACK:
        made.start(stack)
    yield made
    made.close()


@pytest.fixture(scope="session")
def results() -> Results:
    """Where the proof's figures are kept."""
    return Results()


@pytest.fixture(scope="session", autouse=True)
def applying(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Applied] | None]:
    """The apply of one combination, begun with the session if any test waits for it: it mostly waits itself."""
    if not any(uses_the_applied_stack(item) for item in request.session.items):
        yield None
        return
    cli: str = request.getfixturevalue("terraform_cli")
    folder, pool = tmp_path_factory.mktemp("apply"), ThreadPoolExecutor(1, thread_name_prefix="apply")
    with ExitStack() as stack:
        begun: Future[Applied] = Future()
        try:
            emulator = stack.enter_context(serving(cli, folder))
        except NoEmulatorError as reason:
            begun.set_exception(reason)
        else:
            begun = pool.submit(apply_from_nothing, APPLIED_IN_SHORT, emulator, folder, cli)
        yield begun
        pool.shutdown()


@pytest.fixture(scope="session")
def applied(applying: Future[Applied] | None) -> Applied:
    """The applied stack."""
    assert applying is not None
    try:
        return applying.result()
    except NoEmulatorError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def account(applied: Applied) -> Account:
    """The account that the stack was applied to."""
    return Account(applied.emulator)
