"""A limit that two hosts share: exact over all their workers, and bounded in time, whatever happens to its counter.

Two servers on copies of one data folder stand for two hosts: one with two workers that refuses while the counter is
away, one with one worker that allows.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import pytest
import trained
from server import RunningServer, until
from stock import Stock

from counterserver.server import CounterServer, counting
from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import ClientBounds
from modelyard.auth.scopes import parse_rate
from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings
from modelyard.storage.sql.open import open_stores

PATH = "/v2/models/cancer/infer"
BODY = json.dumps(trained.infer_body(X=trained.cancer().rows[:1])).encode()
CLIENTS = ("exact", "killed", "frozen", "flushed", "unwritable", "evicted", "steady")
BURST, DAILY = 60, 40
PATIENCE_S = 5.0
"""What a bounded wait may take on a machine with more to do than cores; the bound itself is 50 ms."""


class Hosts(NamedTuple):
    """Two servers, their counter, and a key for each client: BURST requests an hour."""

    refusing: RunningServer
    allowing: RunningServer
    counter: CounterServer
    keys: dict[str, str]

    def heal(self) -> None:
        """All workers count again: each says when its counter fails, and when that is over."""
        for server in (self.refusing, self.allowing):
            until(partial(_is_whole, server), 20, "counting")


def _is_whole(server: RunningServer) -> bool:
    return len(server.events("limits.counter_failed")) == len(server.events("limits.counter_healed"))


@pytest.fixture(scope="module")
def hosts(stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    stock.copy(folder / "a")
    stores = open_stores(Settings(), folder / "a")
    issuer = KeyIssuer(stores.keys, SystemClock())
    rate = parse_rate(f"{BURST}/h")
    keys = {name: issuer.create(name, rate=rate).text.get_secret_value() for name in CLIENTS}
    bounds = ClientBounds(quota_per_day=DAILY)
    keys["daily"] = issuer.create("daily", bounds=bounds).text.get_secret_value()
    stores.close()
    shutil.copytree(folder / "a", folder / "b")
    with ExitStack() as opened:
        counter = opened.enter_context(counting(password="secret-of-the-counter"))
        known = {"auth.admin_key": stock.admin, "limits.url": counter.url, "limits.password": "secret-of-the-counter"}
        refusing = RunningServer(folder / "a", workers=2, settings=known)
        allowing = RunningServer(folder / "b", workers=1, settings={**known, "limits.on_failure": "allow"})
        for server in (refusing, allowing):
            server.secrets.add("secret-of-the-counter")
            opened.callback(server.end)
            server.start()
        for server in (refusing, allowing):
            until(lambda server=server: server.ask("GET", "/v2/health/ready", key=None).status == 200, 30, "ready")
        yield Hosts(refusing, allowing, counter, keys)
        for server in (refusing, allowing):
            assert "secret-of-the-counter" not in server.output
            server.stop()


def status(server: RunningServer, key: str) -> int:
    """Of one prediction."""
    return server.ask("POST", PATH, BODY, key=key).status


def reasons(server: RunningServer) -> list[str]:
    """Why its counter failed, by its log."""
    return [str(event["reason"]) for event in server.events("limits.counter_failed")]


def predict(connection: http.client.HTTPConnection, key: str, path: str = PATH) -> int:
    """The status of one prediction on this connection."""
    connection.request("POST", path, BODY, {"x-api-key": key})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_limit_is_exact_over_two_hosts_and_three_workers(hosts: Hosts) -> None:
    """L11: 150 requests at once, 50 on each of three workers of two hosts, on a limit of 60 an hour: 60 pass."""
    with ExitStack() as opened, ThreadPoolExecutor(3) as callers:
        found = [opened.enter_context(server.every_worker()) for server in hosts[:2]]
        connections = [connection for each in found for connection in each.values()]
        assert len(connections) == 3

        def call(connection: http.client.HTTPConnection) -> list[int]:
            return [predict(connection, hosts.keys["exact"]) for _ in range(50)]

        answers = [each for answers in callers.map(call, connections) for each in answers]
    assert (answers.count(200), answers.count(429)) == (BURST, 150 - BURST)


def test_a_daily_quota_is_exact_over_two_hosts_and_outlives_its_counter(hosts: Hosts) -> None:
    """Of 90 predictions at once 40 pass, beside requests that are none and cost nothing; each host tells so. After
    kill -9 of the counter the day is not given again: the hosts know what was used."""
    key = hosts.keys["daily"]
    with ExitStack() as opened, ThreadPoolExecutor(3) as callers:
        found = [opened.enter_context(server.every_worker()) for server in hosts[:2]]

        def call(connection: http.client.HTTPConnection) -> list[int]:
            nothing = PATH.replace("cancer", "absent")
            return [predict(connection, key, path) for _ in range(30) for path in (nothing, PATH)]

        answers = [each for some in callers.map(call, [c for each in found for c in each.values()]) for each in some]
    assert [answers.count(code) for code in (404, 200, 429)] == [90, DAILY, 90 - DAILY]
    for server in hosts[:2]:
        assert status(server, key) == 429
        assert server.ask("GET", "/v1/me", key=key).json["left"]["quota"] == 0
    hosts.counter.kill()
    hosts.counter.start()
    for server in hosts[:2]:
        until(lambda server=server: status(server, key) != 503, 20, "counting")
        assert status(server, key) == 429
    hosts.heal()


def test_the_state_is_told_as_by_one_host(hosts: Hosts) -> None:
    """RateLimit-* counts on from host to host, on predictions and on other routes, natively and by ASGI."""
    key, left = hosts.keys["steady"], []
    for server in (hosts.refusing, hosts.allowing):
        for path, body in ((PATH, BODY), (PATH.replace("cancer", "c%61ncer"), BODY), ("/v1/me", None)):
            reply = server.ask("POST" if body else "GET", path, body, key=key)
            assert (reply.status, reply.headers["ratelimit-limit"]) == (200, str(BURST))
            left.append(int(reply.headers["ratelimit-remaining"]))
    assert left == list(range(left[0], left[0] - 6, -1))


def test_a_counter_that_is_killed_and_comes_back(hosts: Hosts) -> None:
    """kill -9: one host refuses with `limits_unavailable` and Retry-After, within bounds; the other serves, but no
    more than the whole limit by itself. Back, both count again; what was counted is lost, once."""
    key = hosts.keys["killed"]
    assert [status(hosts.refusing, key) for _ in range(3)] == [200] * 3
    hosts.counter.kill()
    begun_s = time.monotonic()
    replies = [hosts.refusing.ask("POST", PATH, BODY, key=key) for _ in range(20)]
    assert time.monotonic() - begun_s < PATIENCE_S
    assert {(reply.status, reply.json["code"]) for reply in replies} == {(503, "limits_unavailable")}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
    assert hosts.refusing.ask("GET", "/v1/me", key=key).json["code"] == "limits_unavailable"
    assert hosts.refusing.ask("GET", "/v2/health/ready", key=None).status == 200
    allowed = [status(hosts.allowing, key) for _ in range(BURST + 5)]
    assert (allowed.count(200), allowed.count(429)) == (BURST, 5)
    hosts.counter.start()
    hosts.heal()
    answers = [status(server, key) for server in hosts[:2] for _ in range(BURST // 2 + 5)]
    assert (answers.count(200), answers.count(429)) == (BURST, 10)
    for server in hosts[:2]:
        until(lambda server=server: server.events("limits.counter_healed"), what="the event")
        healed = server.events("limits.counter_healed")[0]
        assert healed["refused"] + healed["allowed"] > 0
        assert healed["allowed"] in ((0,) if server is hosts.refusing else range(BURST, BURST + 9))
        assert reasons(server)[0] == "unreachable"


def test_a_counter_that_hangs_costs_its_bound_once(hosts: Hosts) -> None:
    """SIGSTOP: whoever waits then hears it within the bound, and those who come after do not wait. When it goes on, no
    more pass than the limit lets through."""
    key = hosts.keys["frozen"]
    assert status(hosts.refusing, key) == 200
    hosts.counter.freeze()
    try:
        begun_s = time.monotonic()
        assert {status(hosts.refusing, key) for _ in range(50)} == {503}
        assert time.monotonic() - begun_s < PATIENCE_S
        assert status(hosts.allowing, key) == 200
    finally:
        hosts.counter.thaw()
    hosts.heal()
    passed = sum(status(server, key) == 200 for server in hosts[:2] for _ in range(BURST))
    assert BURST - 15 <= passed < BURST
    assert reasons(hosts.refusing)[-1] in ("too_slow", "unreachable")


def test_scripts_that_are_flushed_are_no_failure(hosts: Hosts) -> None:
    """The server forgets the script: the next request is counted all the same, on what was counted before."""
    before = len(reasons(hosts.refusing))
    assert status(hosts.refusing, hosts.keys["flushed"]) == 200
    hosts.counter.ask("SCRIPT", "FLUSH")
    left = [hosts.refusing.ask("POST", PATH, BODY, key=hosts.keys["flushed"]) for _ in range(2)]
    assert [int(reply.headers["ratelimit-remaining"]) for reply in left] == [BURST - 2, BURST - 3]
    assert len(reasons(hosts.refusing)) == before


def test_a_connection_that_the_server_closed_is_no_failure(hosts: Hosts) -> None:
    """Idle connections are cut on the way: the next request of each worker goes over a new one."""
    key, before = hosts.keys["flushed"], len(reasons(hosts.refusing))
    with hosts.refusing.every_worker() as connections:
        assert [predict(connection, key) for connection in connections.values()] == [200] * 2
        assert hosts.counter.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 2
        assert [predict(connection, key) for connection in connections.values()] == [200] * 2
    assert len(reasons(hosts.refusing)) == before


def become_replica(counter: CounterServer) -> Callable[[], None]:
    """It takes no writes: its primary is elsewhere."""
    counter.ask("REPLICAOF", "127.0.0.1", "1")
    return lambda: counter.ask("REPLICAOF", "NO", "ONE")


def be_full(counter: CounterServer) -> Callable[[], None]:
    """No memory is left, and nothing is evicted."""
    counter.ask("CONFIG", "SET", "maxmemory", "1")
    return lambda: counter.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(("break_it", "reason"), [(become_replica, "read_only"), (be_full, "full")])
def test_a_counter_that_cannot_write(
    hosts: Hosts, break_it: Callable[[CounterServer], Callable[[], None]], reason: str
) -> None:
    """A replica, a full memory: not counted is not served; it heals by itself when writes pass again."""
    key = hosts.keys["unwritable"]
    mend = break_it(hosts.counter)
    try:
        assert status(hosts.refusing, key) == 503
    finally:
        mend()
    assert reasons(hosts.refusing)[-1] == reason
    hosts.heal()
    assert status(hosts.refusing, key) == 200


def test_a_count_that_is_evicted_gives_one_burst_back(hosts: Hosts) -> None:
    """What a policy other than noeviction may do: the client has its burst once more, and no more than that."""
    key = hosts.keys["evicted"]
    assert [status(hosts.allowing, key) for _ in range(BURST + 1)] == [200] * BURST + [429]
    for name in hosts.counter.ask("KEYS", "modelyard:rate:*"):
        hosts.counter.ask("DEL", name)
    assert [status(hosts.allowing, key) for _ in range(BURST + 1)] == [200] * BURST + [429]


def test_state_goes_by_itself(hosts: Hosts) -> None:
    """P4: every key that was written has an end, no later than its client's burst is whole again."""
    names = hosts.counter.ask("KEYS", "*")
    assert names
    for name in names:
        most_s = 4 * 86_400 if name.startswith(b"modelyard:quota:{") else 3600
        assert name.startswith((b"modelyard:rate:{", b"modelyard:quota:{"))
        assert 0 < hosts.counter.ask("PTTL", name) <= most_s * 1000 + 1
