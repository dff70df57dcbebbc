"""Fixtures of the infrastructure's proof: a Terraform, plans made once a session, an emulator with a stack on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from emulation.applying import Applied, apply_at_once, apply_from_nothing
from emulation.emulator import NoEmulatorError, serving
from emulation.journey import AT_ONCE, journey
from emulation.protected import destroy_protected
from emulation.readback import Account
from infraproof.combinations import READ_BACK, READ_BACK_SHORT, Stack
from infraproof.planner import Planner
from infraproof.results import Results
from infraproof.terraform import REPOSITORY

PLAN_CACHE = REPOSITORY / "build" / "infra" / "plans"
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything below this folder is marked `infra`; the long form runs only when it is asked for by its marker."""
    wanted = long_form(config)
    mine = [item for item in items if HERE in item.path.parents]
    mine.sort(key=waits_for_an_apply)
    items[:] = [item for item in items if item not in mine] + mine
    for item in mine:
        item.add_marker(pytest.mark.infra)
    if wanted:
        return
    late = [item for item in mine if item.get_closest_marker("infra_long")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


def long_form(config: pytest.Config) -> bool:
    """True when the long form was asked for by its marker."""
    return "infra_long" in (config.getoption("-m") or "")


def uses_the_applied_stack(item: pytest.Item) -> bool:
    """True for tests of the one stack that is applied and read back."""
    return "applied" in getattr(item, "fixturenames", ())


def asks_for_a_journey(item: pytest.Item) -> bool:
    """True for tests that take a journey themselves: the fixture is in every test's list, for it begins by itself."""
    return isinstance(item, pytest.Function) and "journeys" in signature(item.function).parameters


def waits_for_an_apply(item: pytest.Item) -> bool:
    """True for tests that wait for an apply: they come last, so that the others use the time."""
    return uses_the_applied_stack(item) or asks_for_a_journey(item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep what every read-back over the AWS API said."""
    outcome = yield
    if call.when == "call" and "account" in getattr(item, "fixturenames", ()) and isinstance(item, pytest.Function):
        promise = (item.function.__doc__ or "").strip().splitlines()[0]
        passed = outcome.get_result().passed  # type: ignore[attr-defined]
        stack = (READ_BACK if long_form(item.config) else READ_BACK_SHORT).name
        Results().add("readback", f"{stack} {item.name}", promise=promise, passed=passed)


def missing() -> str:
    """What is missing to plan anything at all; empty when nothing is."""
    cli = os.environ.get("TERRAFORM_CLI", "terraform")
    if shutil.which(cli) is None:
        return f"no Terraform: {cli!r} isn't a program; set TERRAFORM_CLI"
    if "TERRAFORM_CLI" not in os.environ and not {"AWS_PROFILE", "AWS_ACCESS_KEY_ID"} & set(os.environ):
        return "a plan asks the account who it is: set TERRAFORM_CLI to a Terraform that plans offline, or AWS_PROFILE"
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One sentence where there is no Terraform, for skips alone are easily overlooked."""
    if missing():
        terminalreporter.write_line(f"The infrastructure was not planned or applied: {missing()}.")


@pytest.fixture(scope="session")
def terraform_cli() -> str:
    """The program named by TERRAFORM_CLI (default `terraform`)."""
    if missing():
        pytest.skip(missing())
    return os.environ.get("TERRAFORM_CLI", "terraform")


@pytest.fixture(scope="session")
def planner(
    request: pytest.FixtureRequest, terraform_cli: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Planner]:
    """Plans stacks, two at a time; every plan that a test of this session asks for is begun at once."""
    PLAN_CACHE.mkdir(parents=True, exist_ok=True)
    made = Planner(terraform_cli, tmp_path_factory.mktemp("plans"), PLAN_CACHE)
    for stack in asked_for(request):
        made.start(stack)
    yield made
    made.close()


def asked_for(request: pytest.FixtureRequest) -> list[Stack]:
    """The stacks that the session's tests plan, in their order, once each."""
    planning = [item for item in request.session.items if "planner" in getattr(item, "fixturenames", ())]
    found = (getattr(item, "callspec", None) for item in planning)
    stacks = [spec.params["stack"] for spec in found if spec is not None and "stack" in spec.params]
    return [stack for n, stack in enumerate(stacks) if stack not in stacks[:n]]


@pytest.fixture(scope="session")
def results() -> Results:
    """Where the proof's figures are kept."""
    return Results()


@pytest.fixture(scope="session", autouse=True)
def applying(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Applied] | None]:
    """The apply of one combination, begun with the session if any test waits for it: it mostly waits itself."""
    if missing() or not any(uses_the_applied_stack(item) for item in request.session.items):
        yield None
        return
    cli: str = request.getfixturevalue("terraform_cli")
    whole = long_form(request.config)
    folder, pool = tmp_path_factory.mktemp("apply"), ThreadPoolExecutor(1, thread_name_prefix="apply")
    with ExitStack() as stack:
        begun: Future[Applied] = Future()
        try:
            emulator = stack.enter_context(serving(cli, folder))
        except NoEmulatorError as reason:
            begun.set_exception(reason)
        else:
            way, chosen = (apply_from_nothing, READ_BACK) if whole else (apply_at_once, READ_BACK_SHORT)
            begun = pool.submit(way, chosen, emulator, folder, cli)
        yield begun
        pool.shutdown()


@pytest.fixture(scope="session", autouse=True)
def journeys(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """The journeys of every stack that this session asks for, begun with it and run a few at a time."""
    asked = [(item, spec.params) for item in request.session.items if (spec := getattr(item, "callspec", None))]
    mine = [params for item, params in asked if asks_for_a_journey(item)]
    if missing() or not mine:
        yield {}
        return
    folder, pool = tmp_path_factory.mktemp("journeys"), ThreadPoolExecutor(AT_ONCE, thread_name_prefix="journey")
    begun: dict[str, Future[Any]] = {}
    for number, params in enumerate(mine):
        stack, way = (params["stack"], journey) if "stack" in params else (params["protected"], destroy_protected)
        begun[stack.name] = pool.submit(
            way, stack, folder / f"stack{number}", os.environ.get("TERRAFORM_CLI", "terraform")
        )
    yield begun
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def applied(applying: Future[Applied] | None, terraform_cli: str) -> Applied:
    """The applied stack."""
    assert applying is not None, terraform_cli
    try:
        return applying.result()
    except NoEmulatorError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def account(applied: Applied) -> Account:
    """The account that the stack was applied to."""
    return Account(applied.emulator)
