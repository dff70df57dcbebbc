"""A limit that two hosts share in a DynamoDB table: exact over all their workers, and bounded in time, whatever happens
to the table. The service is an emulator in a process of its own.

The hosts are those of test_counter_faults: one with two workers that refuses while the counter is away, one with one
worker that allows.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import pytest
import trained
from server import RunningServer, until
from stock import Stock

from dynamo.emulator import Dynamo
from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import ClientBounds
from modelyard.auth.scopes import parse_rate
from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings
from modelyard.storage.sql.open import open_stores

PATH = "/v2/models/cancer/infer"
BODY = json.dumps(trained.infer_body(X=trained.cancer().rows[:1])).encode()
CLIENTS = ("exact", "failing", "frozen", "throttled")
BURST, DAILY = 60, 40
PATIENCE_S = 20.0
TIMEOUT_MS = 1000
"""The emulator does one request at a time, on a machine with more to do."""


class Hosts(NamedTuple):
    """Two servers, and a key for each client: BURST requests an hour."""

    refusing: RunningServer
    allowing: RunningServer
    keys: dict[str, str]

    def heal(self) -> None:
        """All workers count again: each says when its counter fails, and when that is over."""
        for server in self[:2]:
            until(partial(_is_whole, server), 20, "counting")


def _is_whole(server: RunningServer) -> bool:
    return len(server.events("limits.counter_failed")) == len(server.events("limits.counter_healed"))


@pytest.fixture(scope="module")
def hosts(stock: Stock, dynamo: Dynamo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("dynamo-hosts")
    stock.copy(folder / "a")
    stores = open_stores(Settings(), folder / "a")
    issuer = KeyIssuer(stores.keys, SystemClock())
    keys = {name: issuer.create(name, rate=parse_rate(f"{BURST}/h")).text.get_secret_value() for name in CLIENTS}
    keys["daily"] = issuer.create("daily", bounds=ClientBounds(quota_per_day=DAILY)).text.get_secret_value()
    stores.close()
    shutil.copytree(folder / "a", folder / "b")
    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamo.url)
        patch.setenv("AWS_REGION", "us-east-1")
        known = {
            "auth.admin_key": stock.admin,
            "limits.url": f"dynamodb://{dynamo.counters()}",
            "limits.timeout_ms": str(TIMEOUT_MS),
        }
        refusing = RunningServer(folder / "a", workers=2, settings=known)
        allowing = RunningServer(folder / "b", workers=1, settings={**known, "limits.on_failure": "allow"})
        for server in (refusing, allowing):
            opened.callback(server.end)
            server.start()
        for server in (refusing, allowing):
            until(lambda server=server: server.ask("GET", "/v2/health/ready", key=None).status == 200, 30, "ready")
        found = Hosts(refusing, allowing, keys)
        found.heal()
        yield found
        dynamo.fail()
        for server in (refusing, allowing):
            server.stop()


def status(server: RunningServer, key: str) -> int:
    """Of one prediction."""
    return server.ask("POST", PATH, BODY, key=key).status


def reasons(server: RunningServer) -> list[str]:
    """Why its counter failed, by its log."""
    return [str(event["reason"]) for event in server.events("limits.counter_failed")]


def predict(connection: http.client.HTTPConnection, key: str) -> int:
    """The status of one prediction on this connection."""
    connection.request("POST", PATH, BODY, {"x-api-key": key})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def at_once(hosts: Hosts, key: str, each: int) -> list[int]:
    """The answers to so many requests on each of the three workers, all at the same time."""
    with ExitStack() as opened, ThreadPoolExecutor(3) as callers:
        found = [opened.enter_context(server.every_worker()) for server in hosts[:2]]
        connections = [connection for workers in found for connection in workers.values()]
        assert len(connections) == 3
        calls = callers.map(lambda connection: [predict(connection, key) for _ in range(each)], connections)
        return [answer for answers in calls for answer in answers]


def test_exact_over_two_hosts_and_three_workers(hosts: Hosts) -> None:
    """L11: 150 requests at once, 50 on each of three workers of two hosts, on a limit of 60 an hour: 60 pass."""
    answers = at_once(hosts, hosts.keys["exact"], 50)
    assert (answers.count(200), answers.count(429)) == (BURST, 150 - BURST)


def test_a_quota_over_two_hosts(hosts: Hosts) -> None:
    """Of 90 predictions at once 40 pass, and each host tells that nothing is left."""
    answers = at_once(hosts, hosts.keys["daily"], 30)
    assert (answers.count(200), answers.count(429)) == (DAILY, 90 - DAILY)
    for server in hosts[:2]:
        assert status(server, hosts.keys["daily"]) == 429
        assert server.ask("GET", "/v1/me", key=hosts.keys["daily"]).json["left"]["quota"] == 0


def test_a_throttled_moment_is_no_failure(hosts: Hosts, dynamo: Dynamo) -> None:
    """Twice, and then it counts: nobody hears of it."""
    before = len(reasons(hosts.refusing))
    dynamo.fail({"target": "UpdateItem", "status": 400, "code": "ThrottlingException", "times": 2})
    assert status(hosts.refusing, hosts.keys["throttled"]) == 200
    assert len(reasons(hosts.refusing)) == before


def test_a_table_that_answers_500(hosts: Hosts, dynamo: Dynamo) -> None:
    """One host refuses with `limits_unavailable` and Retry-After; the other serves, but no more than the whole limit
    by itself. Then both go on from what was counted."""
    key = hosts.keys["failing"]
    assert [status(hosts.refusing, key) for _ in range(3)] == [200] * 3
    dynamo.fail({"target": "", "status": 500, "code": "InternalServerError", "times": 1_000_000})
    replies = [hosts.refusing.ask("POST", PATH, BODY, key=key) for _ in range(10)]
    assert {(reply.status, reply.json["code"]) for reply in replies} == {(503, "limits_unavailable")}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
    assert hosts.refusing.ask("GET", "/v2/health/ready", key=None).status == 200
    allowed = [status(hosts.allowing, key) for _ in range(BURST + 5)]
    assert (allowed.count(200), allowed.count(429)) == (BURST, 5)
    dynamo.fail()
    hosts.heal()
    answers = [status(server, key) for server in hosts[:2] for _ in range(BURST // 2 + 5)]
    assert (answers.count(200), answers.count(429)) == (BURST - 3, 13)
    healed = hosts.allowing.events("limits.counter_healed")[-1]
    assert healed["allowed"] in range(BURST, BURST + 9)
    assert reasons(hosts.refusing)[-1] == "busy"


def test_a_table_that_hangs_costs_its_bound_once(hosts: Hosts, dynamo: Dynamo) -> None:
    """SIGSTOP: whoever waits then hears it within the bound, and those who come after do not wait."""
    key = hosts.keys["frozen"]
    assert status(hosts.refusing, key) == 200
    os.kill(dynamo.process.pid, signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        assert {status(hosts.refusing, key) for _ in range(50)} == {503}
        assert time.monotonic() - begun_s < PATIENCE_S
        assert status(hosts.allowing, key) == 200
    finally:
        os.kill(dynamo.process.pid, signal.SIGCONT)
    hosts.heal()
    assert sum(status(server, key) == 200 for server in hosts[:2] for _ in range(BURST)) < BURST
    assert reasons(hosts.refusing)[-1] in ("too_slow", "unreachable")
