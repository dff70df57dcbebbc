"""One real server, as a stranger meets it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

for folder in ("journey", "contract"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))

from raw_http import Caller  # noqa: E402
from server import RunningServer, until  # noqa: E402
from trained import infer_body, simple  # noqa: E402


@pytest.fixture(scope="session")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One worker, one model `simple`, one prediction in the log."""
    started = RunningServer(tmp_path_factory.mktemp("security") / "data").start()
    try:
        assert started.publish("simple", simple(), "1").status == 201
        key = started.create_key("owner")["key"]
        row = np.ones((1, 16), np.int64)
        reply = started.ask("POST", "/v2/models/simple/infer", infer_body(INPUT0=row, INPUT1=row), key=key)
        assert reply.status == 200, reply.body
        until(lambda: started.count() == 1, what="the drain")
        yield started
    except BaseException:
        started.end()
        raise
    started.stop()


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    Caller.close_all()
