"""What the fault tests share: servers of the journey, raw callers, and where figures of long runs go."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
for folder in (HERE.parent / "journey", HERE.parent / "contract", HERE / "misdeeds"):
    sys.path.insert(0, str(folder))

import trained  # noqa: E402
from raw_http import Caller  # noqa: E402
from server import RunningServer  # noqa: E402
from stock import Stock  # noqa: E402


@pytest.fixture(autouse=True)
def close_raw_callers() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    Caller.close_all()


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """Made once: publishing takes longer than most tests."""
    server = RunningServer(tmp_path_factory.mktemp("stock") / "data").start()
    try:
        models = {
            "guilty": trained.divide(), "slow": trained.slow(), "innocent": trained.words(),
            "cancer": trained.cancer().content,
        }  # fmt: skip
        for name, content in models.items():
            assert server.publish(name, content, "1").status == 201
        key = server.create_key("caller", rate="1000000/s")["key"]
        server.stop()
    finally:
        server.end()
    return Stock(server.data, server.key, key)


@pytest.fixture
def stocked(serve: Callable[..., RunningServer], stock: Stock, tmp_path: Path) -> Callable[..., RunningServer]:
    """Starts a server on a copy of the stock (on the same copy, if it is there), with the same administrator."""

    def start(settings: Mapping[str, str] | None = None, **options: Any) -> RunningServer:
        if not (tmp_path / "data").exists():
            stock.copy(tmp_path / "data")
        return serve(settings={"auth.admin_key": stock.admin, **(settings or {})}, **options)

    return start


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers of a test's own on `tmp_path/data`, by way of the command `through`; nothing is left of them,
    however the test ended."""
    running: list[RunningServer] = []

    def start(through: Sequence[str] = (), **options: Any) -> RunningServer:
        running.append(RunningServer(tmp_path / "data", **options))
        running[-1]._arguments[:0] = through
        return running[-1].start()

    yield start
    for one in running:
        one.end()


@pytest.fixture
def misdeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers started in this test have models that can be told to misbehave (misdeeds/misdeed.py)."""
    kept = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(HERE / "misdeeds"), kept))))
