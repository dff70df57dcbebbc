"""One server with two workers for all that need not stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trained
from server import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers; `cancer` (1 and 2), `digits`, `words`, `simple`, `divide`."""
    started = RunningServer(tmp_path_factory.mktemp("journey") / "data", workers=2).start()
    try:
        publish_all(started)
        yield started
    except BaseException:
        started.end()
        raise
    started.stop()


def publish_all(server: RunningServer) -> None:
    """Publishes the session's models."""
    named = {
        ("cancer", "1"): trained.cancer(1.0).content,
        ("cancer", "2"): trained.cancer(0.01).content,
        ("digits", "1"): trained.digits().content,
        ("words", "1"): trained.words(),
        ("simple", "1"): trained.simple(),
        ("divide", "1"): trained.divide(),
    }
    for (model, version), content in named.items():
        reply = server.publish(model, content, version)
        assert reply.status == 201, reply.body


@pytest.fixture(scope="session")
def client_key(server: RunningServer) -> str:
    """A key that may predict with every model, hardly limited."""
    key: str = server.create_key("journey", rate="1000000/s")["key"]
    return key


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers of a test's own on `tmp_path/data`; what still runs at the end is stopped, in order."""
    running: list[RunningServer] = []

    def start(**options: Any) -> RunningServer:
        running.append(RunningServer(tmp_path / "data", **options))
        return running[-1].start()

    yield start
    for one in running:
        if one.process.poll() is None:
            one.stop()
        one.end()
