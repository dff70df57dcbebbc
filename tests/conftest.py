"""Rules for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import structlog

from counterserver.server import CounterServer, counting
from dynamo.emulator import Dynamo, emulating
from mariadb.server import Server as MariaDB
from mariadb.server import serving as serving_mariadb
from objectstore.emulator import Emulator, emulated
from postgres.server import Server, serving

# A shell that runs the tests in the background ignores SIGINT for them, and every server they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """An S3 service on this machine, over HTTP."""
    with emulated() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of our own."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def counter_server() -> Iterator[CounterServer]:
    """A server that counts limits; tests that share it take clients of their own."""
    with counting() as running:
        yield running


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """A MariaDB server of our own."""
    with serving_mariadb() as running:
        yield running


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> Iterator[MariaDB]:
    """The same; databases that the test was lent are emptied behind it."""
    yield mariadb_server
    mariadb_server.take_back()


@pytest.fixture(scope="session")
def dynamo() -> Iterator[Dynamo]:
    """An emulator of DynamoDB in a process of its own."""
    with emulating() as running:
        yield running


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """Events go nowhere, and no logging is set up for the next test."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Where everything is installed (CI=true) a skip is a failure: it would hide a missing install step."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms, and what needs an environment of its own, run only when they are asked for (see `make help`)."""
    wanted = config.option.markexpr
    for item in list(items):
        for marker in ("long", "infra_long", "kserve"):
            if marker in item.keywords and marker not in wanted:
                items.remove(item)
                break
