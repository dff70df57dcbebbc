"""One suite per port, run on the public fake and on every real adapter alike."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from together import PROCESS_TIMEOUT_S, at_once

from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import memory_stores

URL = "MODELYARD_DATABASE__URL"


SERVERS = {"postgresql": "postgres", "mysql": "mariadb"}
"""The fixture of each database that is a server."""


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """A connected set of empty stores."""
    if request.param == "memory":
        opened = memory_stores()
    elif request.param == "sqlite":
        opened = open_stores(Settings(), tmp_path / "data")
    else:
        url = request.getfixturevalue(SERVERS[request.param]).migrated()
        opened = open_stores(Settings(database=DatabaseSettings(url=url)), tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", *SERVERS])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, its database at the newest schema: a file in it, or on the server that `Settings()` names
    from here on."""
    if request.param in SERVERS:
        monkeypatch.setenv(URL, request.getfixturevalue(SERVERS[request.param]).migrated())
    open_stores(Settings(), tmp_path / "data").close()
    return tmp_path / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes die at each step, one server stands for both in the short form."""
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if given.get("data") == "mysql" and given.get("sweep") is sweep_killing:
            item.add_marker("long")


Operation = Callable[[Stores], Any]
View = Callable[[Stores], Any]


class Interrupted(Exception):
    """The failpoint's."""


@contextmanager
def failing_at(engine_of: Stores, nth: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Calls `act` instead of the n-th statement or commit (from 0) of the stores' database; lists what was reached."""
    engine: Engine = engine_of.ping.__self__.engine  # type: ignore[attr-defined]  # the Database behind `ping`
    reached: list[str] = []

    def step(name: str) -> None:
        reached.append(name)
        if len(reached) == nth + 1:
            act()

    def on_statement(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        step(statement)

    def on_commit(_connection: Any) -> None:
        step("COMMIT")

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
        context.Process(target=at_once, args=(barrier, answers, data, os.environ.get(URL), work, number), daemon=True)
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
