"""One suite per port, run on the public fake and on every real adapter alike."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from together import PROCESS_TIMEOUT_S, at_once, in_one_transaction

from dynamo.emulator import Dynamo
from modelyard.core.settings import DatabaseSettings, RetentionSettings, Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import memory_stores

URL = "MODELYARD_DATABASE__URL"
EMULATED_LONG = re.compile(
    r"kill|cursor|same_record_again|never_given_twice|at_once_lose_nothing|agree_on_slots|write_one_chain|operators"
    r"|lose_nothing|without_losing|threads_|_add_same|storing_the_same|agree\[dynamodb-(1|7)-|agree\[dynamodb-2-Rec"
    r"|agree\[dynamodb-1-.*(items=True|outcome='none'|outcome='has'|client='c2')|can_come_true\[dynamodb-[^{]"
    r"|agree\[dynamodb-60-.*(status=(4|201|3|404)\b|inf|since=1e|version='2'|model='tree', version|garden)"
    r"|raise-(limits|client|revocation|traffic)|bulk_revocation|json_value_is_stored\[dynamodb-(value[1-9]|2|None)"
    r"|matches_all_of_it\[dynamodb-what(1|2|3|4|5|6|8|9)|complete\[dynamodb-(1|4)\]|hostile|time_that_is_none"
)
"""What takes long on an emulator, which answers some hundred requests a second: its short form runs on the others."""

WITHOUT_DYNAMODB = re.compile(r"test_(analytics|archive)\.py")

SERVERS = {"postgresql": "postgres", "mysql": "mariadb"}
"""The fixture of each database that is a server."""


@pytest.fixture(params=["memory", "sqlite", *SERVERS, "dynamodb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """A connected set of empty stores."""
    if request.param == "memory":
        opened = memory_stores()
    elif request.param == "sqlite":
        opened = open_stores(Settings(), tmp_path / "data")
    elif request.param in SERVERS:
        url = request.getfixturevalue(SERVERS[request.param]).migrated()
        opened = open_stores(Settings(database=DatabaseSettings(url=url)), tmp_path / "data")
    else:
        dynamo: Dynamo = request.getfixturevalue("dynamo")
        # Records of the tests are from 2023: after 90 days they would expire by themselves.
        kept = RetentionSettings(days=0)
        opened = open_stores(Settings(database=dynamo.settings(dynamo.tables()), retention=kept), tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", *SERVERS, "dynamodb"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, its database at the newest schema: a file in it, or on the server that `Settings()` names
    from here on."""
    if request.param in SERVERS:
        monkeypatch.setenv(URL, request.getfixturevalue(SERVERS[request.param]).migrated())
    elif request.param == "dynamodb":
        dynamo: Dynamo = request.getfixturevalue("dynamo")
        for name, value in dynamo.variables(dynamo.tables()).items():
            monkeypatch.setenv(name, value)
    open_stores(Settings(), tmp_path / "data").close()
    return tmp_path / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes die at each step, one server stands for both in the short form. DynamoDB has neither rollups nor
    records on their way to an archive."""
    items[:] = [item for item in items if not ("dynamodb" in item.name and WITHOUT_DYNAMODB.search(item.nodeid))]
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if given.get("data") == "mysql" and given.get("sweep") is sweep_killing:
            item.add_marker("long")
        if "dynamodb" in item.name and EMULATED_LONG.search(item.name):
            item.add_marker("long")


Operation = Callable[[Stores], Any]
View = Callable[[Stores], Any]


class Interrupted(Exception):
    """The failpoint's."""


@contextmanager
def failing_at(engine_of: Stores, nth: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Calls `act` instead of the n-th statement or commit (from 0) of the stores' database; lists what was reached."""
    reached: list[str] = []

    def step(name: str) -> None:
        reached.append(name)
        if len(reached) == nth + 1:
            act()

    def on_statement(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        step(statement)

    def on_commit(_connection: Any) -> None:
        step("COMMIT")

    database: Any = engine_of.ping.__self__  # type: ignore[attr-defined]  # what is behind `ping`
    if not in_one_transaction(engine_of):
        events = database.requests.client.get().meta.events
        on_request = lambda model, **_more: step(model.name)  # noqa: E731
        events.register("before-call.dynamodb", on_request)
        try:
            yield reached
        finally:
            events.unregister("before-call.dynamodb", on_request)
        return
    engine: Engine = database.engine
    event.listen(engine, "before_cursor_execute", on_statement)
    event.listen(engine, "commit", on_commit)
    try:
        yield reached
    finally:
        event.remove(engine, "before_cursor_execute", on_statement)
        event.remove(engine, "commit", on_commit)


def _interrupt() -> None:
    raise Interrupted


def _die() -> None:
    os._exit(9)


def sweep_raising(data: Path, operation: Operation, view: View) -> int:
    """Fails at step N, N+1, … of the operation until it survives: whatever the N, the view is the old one, and the
    new one at last. The number of steps."""
    stores = open_stores(Settings(), data)
    try:
        old = view(stores)
        for nth in range(100):
            with failing_at(stores, nth, _interrupt) as reached, suppress(Interrupted):
                operation(stores)
            if len(reached) <= nth:
                assert view(stores) != old
                return len(reached)
            assert view(stores) == old, f"changed although step {nth} failed: {reached[-1]}"
    finally:
        stores.close()
    raise AssertionError("the operation never ended")


def sweep_killing(data: Path, operation: Operation, view: View) -> int:
    """The same with a process that dies at step N; another process looks at what is left."""
    old = _viewed(data, view)
    for nth in range(100):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                stores = open_stores(Settings(), data)
                with failing_at(stores, nth, _die):
                    operation(stores)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            assert _viewed(data, view) != old
            return nth
        assert code == 9
        assert _viewed(data, view) == old, f"changed although the process died at step {nth}"
    raise AssertionError("the operation never ended")


def _viewed(data: Path, view: View) -> Any:
    stores = open_stores(Settings(), data)
    try:
        return view(stores)
    finally:
        stores.close()


def in_processes(count: int, data: Path, work: Callable[[Stores, int], Any]) -> list[Any]:
    """What `work(stores, number)` gives in each of `count` processes that start it at the same moment, each with
    stores of its own over one data folder. `work` is a function of a test module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modelyard.storage.sql.open", "modelyard.testing"])
    barrier = context.Barrier(count)
    answers: Any = context.Queue()
    processes = [
        context.Process(target=at_once, args=(barrier, answers, data, dict(os.environ), work, number), daemon=True)
        for number in range(count)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=PROCESS_TIMEOUT_S) for _ in processes]
    for process in processes:
        process.join(PROCESS_TIMEOUT_S)
        process.close()
    answers.close()
    answers.join_thread()
    return [answer for _number, answer in sorted(found, key=lambda pair: pair[0])]


@pytest.fixture
def processes(data: Path) -> Callable[[int, Callable[[Stores, int], Any]], list[Any]]:
    """`in_processes` over `data`."""
    assert sys.platform == "linux"
    return lambda count, work: in_processes(count, data, work)


@pytest.fixture(params=[sweep_raising, sweep_killing], ids=["raise", "kill"])
def sweep(request: pytest.FixtureRequest, data: Path) -> Callable[[Operation, View], int]:
    """Interrupts an operation at each of its steps; `sweep(operation, view)` checks old or new."""
    return lambda operation, view: request.param(data, operation, view)
