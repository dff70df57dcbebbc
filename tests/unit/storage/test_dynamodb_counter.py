"""Limits counted in a DynamoDB table: one update each, hosts whose clocks differ, and what the table refuses. The table
is an emulator's: these tests show what we send and how we take answers, not what AWS answers."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.emulator import Dynamo
from modelyard.app.folder import DataFolder
from modelyard.cli.doctor.findings import State
from modelyard.cli.doctor.limits import limits
from modelyard.core.clock import SystemClock
from modelyard.core.errors import UnavailableError
from modelyard.core.settings import LimitsSettings, Settings, load_settings
from modelyard.limits.breaker import Breaker
from modelyard.limits.ports import RateAsk, RateDecision
from modelyard.storage.counters import open_counter, probe
from modelyard.storage.dynamodb.attributes import decode
from modelyard.storage.dynamodb.limits.counter import MOST_TRIES, PATIENCE_S, DynamoCounter
from modelyard.storage.dynamodb.limits.service_time import JUMP_S, ServiceTime
from modelyard.storage.dynamodb.limits.update import SKEW_NS
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.testing import FakeClock
from objectstore.answers import SECRETS
from objectstore.wire import Fault, first, wired

INFRA = Path(__file__).parents[3] / "infra" / "modules"
NOW_S = 1_800_000_000.0


class Told(ServiceTime):
    """Its host's clock alone, as if the service had said nothing."""

    def is_known(self) -> bool:
        return True

    def heard(self, date_s: float, asked_s: float, answered_s: float) -> None:
        """Not this time."""


class Host:
    """A worker of a host, on a clock of its own."""

    def __init__(self, counter: DynamoCounter, loop: asyncio.AbstractEventLoop) -> None:
        self.counter = counter
        self._loop = loop

    def take(self, count: int, client: str = "acme", burst: int = 10, interval_s: float = 0.5) -> RateDecision:
        return self.all([RateAsk(client, 0, interval_s, burst, count)])[0]

    def all(self, asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
        found: Sequence[RateDecision] = self._loop.run_until_complete(self.counter.take(asks))
        return found

    def refused(self) -> UnavailableError:
        """What it says where it cannot count; without a word of the vendor's."""
        with pytest.raises(UnavailableError) as found:
            self.take(1)
        said = f"{found.value.message}{dict(found.value.detail)}"
        assert not [secret for secret in (*SECRETS, "hunter2", "123456789012") if secret in said]
        assert found.value.code == "limits_unavailable"
        assert found.value.message.endswith(".")
        return found.value


Hosts = Callable[..., Host]


@pytest.fixture
def host(dynamo: Dynamo) -> Iterator[Hosts]:
    """Makes hosts that count in one table, all of them on one loop; they are closed behind the test."""
    loop = asyncio.new_event_loop()
    table, made = dynamo.counters(), []

    def make(clock: Any = None, *, told: bool = True, url: str | None = None, name: str = table) -> Host:
        settings = dynamo.settings("dynamodb://counters", busy_timeout_s=PATIENCE_S)
        settings = settings.model_copy(update={"endpoint_url": url or dynamo.url})
        clock = clock or FakeClock(now=NOW_S)
        time = Told(clock) if told else None
        made.append(Host(DynamoCounter(name, settings, clock, time=time, chance=lambda: 0.0), loop))
        return made[-1]

    make.table = table  # type: ignore[attr-defined]
    dynamo.fail()
    yield make
    dynamo.fail()
    for one in made:
        loop.run_until_complete(one.counter.close())
        loop.run_until_complete(one.counter.close())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def item(dynamo: Dynamo, host: Hosts, client: str = "acme") -> dict[str, Any]:
    """A client's item as it lies in the table."""
    found = dynamo.client.get_item(TableName=host.table, Key={"pk": {"S": f"client#{client}"}})  # type: ignore[attr-defined]
    return decode(found["Item"])


def updates(dynamo: Dynamo) -> list[dict[str, Any]]:
    """The updates that were asked for since the last look."""
    return [each["request"] for each in dynamo.asked() if each["target"] == "UpdateItem"]


def test_a_turn_is_one_update_for_each_client(dynamo: Dynamo, host: Hosts) -> None:
    """Whatever a client asks for in an exchange costs one update, and none where it is known to be beyond its rate;
    nothing is read."""
    alone = host()
    dynamo.asked()
    alone.all([RateAsk(f"c{n}", 0, 60.0, 10, 7) for n in range(3)])
    alone.all([RateAsk(f"c{n}", 0, 60.0, 10, 3) for n in range(3)])
    assert [each["target"] for each in dynamo.asked()] == ["UpdateItem"] * 6
    assert [alone.take(1, "c0", interval_s=60.0).passed for _ in range(50)] == [0] * 50
    assert updates(dynamo) == []


def test_a_client_is_one_small_item_that_leaves(dynamo: Dynamo, host: Hosts) -> None:
    """Below the kilobyte that a write unit holds, with four days of counts; the expiry is behind the burst, and behind
    the days of a quota."""
    alone = host()
    alone.take(4, burst=1000)
    lies = item(dynamo, host)
    assert lies["tat"] == int(NOW_S) * 10**9 + 2 * 10**9
    assert 500 <= lies[EXPIRES_AT] - NOW_S <= 600
    today = int(NOW_S // 86_400)
    for day in range(today - 3, today + 1):
        alone.all([RateAsk("acme", 0, 0.5, 1000, 0, 10**12, day, 10**11)])
    lies = item(dynamo, host)
    assert sum(len(name) + len(str(value)) for name, value in lies.items()) < 300
    assert 4 * 86_400 <= lies[EXPIRES_AT] - NOW_S <= 4 * 86_400 + 60


def test_days_that_are_over_leave_the_item(dynamo: Dynamo, host: Hosts) -> None:
    """A new day takes out those that nobody can come back to."""
    clock = FakeClock(now=NOW_S)
    alone, today = host(clock), int(NOW_S // 86_400)
    for day in range(6):
        decision = alone.all([RateAsk("acme", 0, 0.5, 10, 1, 100, today + day)])[0]
        assert decision.quota is not None
        assert (decision.quota.used, decision.quota.day) == (1, today + day)
        clock.advance(86_400)
    days = sorted(name for name in item(dynamo, host) if name.startswith("d"))
    assert days == [f"d{today + day}" for day in range(2, 6)]


def test_hosts_at_the_same_moment_are_exact(dynamo: Dynamo, host: Hosts) -> None:
    """Eight workers ask for three each of a burst of ten, and of a quota of six, all at once: ten pass, six have a
    share, whoever is quicker; and of those who follow none."""
    clock, today = FakeClock(now=NOW_S), int(NOW_S // 86_400)
    workers = [host(clock) for _ in range(8)]
    ask = RateAsk("acme", 0, 60.0, 10, 3, 6, today)

    async def at_once() -> Sequence[Sequence[RateDecision]]:
        return await asyncio.gather(*(worker.counter.take([ask]) for worker in workers))

    found = [each for answer in workers[0]._loop.run_until_complete(at_once()) for each in answer]
    assert sum(each.passed for each in found) == 10
    assert sum(each.quota.reserved for each in found if each.quota) == 6
    after = [worker.all([ask])[0] for worker in workers]
    assert [each.passed for each in after] == [0] * 8


def test_clocks_that_differ_cost_their_difference_once(dynamo: Dynamo, host: Hosts) -> None:
    """A host whose clock runs two seconds ahead lets 2 s / 0.5 s = 4 more pass, once, however often both ask; the
    other waits for as long. Nobody takes the state back off the other."""
    clock, ahead = FakeClock(now=NOW_S), FakeClock(now=NOW_S + 2)
    right, wrong = host(clock), host(ahead)
    assert right.take(20).passed == 10
    assert [wrong.take(20).passed, right.take(20).passed, wrong.take(20).passed] == [4, 0, 0]
    for _ in range(5):
        assert (right.take(20).passed, wrong.take(20).passed) == (0, 0)
    assert right.take(1).remaining == 0
    passed = 0
    for _ in range(20):
        clock.advance(0.5)
        ahead.advance(0.5)
        passed += right.take(20).passed + wrong.take(20).passed
    assert passed == 20


def test_a_time_that_no_clock_made_is_forgotten(dynamo: Dynamo, host: Hosts) -> None:
    """Further ahead than the burst and any skew, as a limit of an hour leaves it: the client waits for a burst's time,
    not for the hour."""
    clock = FakeClock(now=NOW_S)
    alone = host(clock)
    assert alone.take(1, burst=1, interval_s=3600).passed == 1
    assert alone.take(1).passed == 0
    assert item(dynamo, host)["tat"] == int(NOW_S + 5) * 10**9
    clock.advance(5)
    assert alone.take(20).passed == 10
    assert SKEW_NS >= 4 * 10**9  # twice a second and what an exchange may take


def test_a_host_an_hour_ahead_counts_by_the_services_time(dynamo: Dynamo, host: Hosts) -> None:
    """P10: its own clock would give it sixty more; by the dates of the answers it gets none."""

    class Ahead(SystemClock):
        @staticmethod
        def now() -> float:  # type: ignore[override]
            return time.time() + 3600

    right, wrong = host(SystemClock(), told=False), host(Ahead(), told=False)
    assert right.take(60, burst=10, interval_s=60.0).passed == 10
    assert [wrong.take(60, burst=10, interval_s=60.0).passed for _ in range(3)] == [0, 0, 0]
    assert wrong.take(5, "other", burst=5, interval_s=60.0).passed == 5
    assert right.take(5, "other", burst=5, interval_s=60.0).passed == 0


@given(
    off_s=st.floats(-1e6, 1e6),
    rounds=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.05), st.floats(0, 0.05)), min_size=1, max_size=40),
)
def test_no_clock_is_further_off_than_the_answers_allow(off_s: float, rounds: list[tuple[float, float, float]]) -> None:
    """For any error of the host's clock and any answers: within a second and a round trip from the first on, never
    further off than the host's clock itself, and never worse for another answer."""
    clock = FakeClock(now=NOW_S + off_s, monotonic=50.0)
    time_ = ServiceTime(clock)
    error = abs(off_s)
    for pause_s, there_s, back_s in rounds:
        clock.advance(pause_s)
        asked_s = clock.monotonic()
        clock.advance(there_s)
        date = (clock.now() - off_s) // 1
        clock.advance(back_s)
        time_.heard(date, asked_s, clock.monotonic())
        assert time_.is_known()
        found = abs(time_.now_ns() / 1e9 - (clock.now() - off_s))
        assert found <= min(error, 1 + there_s + back_s) + 1e-3
        error = found + 3 * 2e-4


def test_a_clock_that_was_set_makes_it_ask_again(dynamo: Dynamo, host: Hosts) -> None:
    """After a jump of this host's clock, or a time in which it was frozen, the service's is asked for before anything
    is counted; else it is not."""

    class Clock(FakeClock):
        leap_s = 0.0

        def now(self) -> float:
            return super().now() + self.leap_s

    clock = Clock(now=time.time())
    alone = host(clock, told=False)
    dynamo.asked()
    alone.take(1, interval_s=60.0)
    alone.take(1, interval_s=60.0)
    clock.leap_s = 3600.0 + JUMP_S
    assert alone.take(20, interval_s=60.0).passed == 8
    targets = [each["target"] for each in dynamo.asked()]
    assert targets == ["GetItem", "UpdateItem", "UpdateItem", "GetItem", "UpdateItem"]


def test_a_throttled_update_is_made_again(dynamo: Dynamo, host: Hosts) -> None:
    """It was surely not counted. Three times are too often: busy, and waiting helps."""
    alone, throttled = host(), {"target": "UpdateItem", "status": 400, "code": "ThrottlingException"}
    dynamo.fail({**throttled, "times": 2})
    assert alone.take(4).remaining == 6
    dynamo.fail({**throttled, "times": 3})
    error = alone.refused()
    assert (error.detail["reason"], error.retry_after_s) == ("busy", 1.0)
    assert alone.take(4).remaining == 2


def test_what_may_have_been_counted_is_not_asked_again(dynamo: Dynamo, host: Hosts) -> None:
    """500, once after it was done: busy at once; the client has less then, never more."""
    alone = host()
    fault = {"target": "UpdateItem", "status": 500, "code": "InternalServerError", "times": 1}
    dynamo.fail(fault)
    assert alone.refused().detail["reason"] == "busy"
    dynamo.asked()
    dynamo.fail({**fault, "applied": True})
    assert alone.refused().detail["reason"] == "busy"
    assert len(updates(dynamo)) == 1
    assert alone.take(3).remaining == 6


def test_a_refusal_without_the_item_is_read_after(dynamo: Dynamo, host: Hosts) -> None:
    """An item that left meanwhile, or an emulator that tells none: one read, then the right update. Who is always told
    so gives up, and says busy."""
    alone = host()
    fault = {"target": "UpdateItem", "status": 400, "code": "ConditionalCheckFailedException"}
    assert alone.take(4).remaining == 6
    dynamo.asked()
    dynamo.fail({**fault, "times": 1})
    assert alone.take(4).remaining == 2
    assert [each["target"] for each in dynamo.asked()] == ["UpdateItem", "GetItem", "UpdateItem"]
    dynamo.fail({**fault, "times": 1000})
    assert alone.refused().detail["reason"] == "busy"
    assert len(updates(dynamo)) == MOST_TRIES


def test_a_client_that_fails_fails_its_exchange(dynamo: Dynamo, host: Hosts) -> None:
    """One of many that cannot be counted: none is told to be, and the next exchange is whole."""
    alone = host()
    dynamo.fail({"target": "UpdateItem", "status": 500, "code": "InternalServerError", "times": 1})
    with pytest.raises(UnavailableError):
        alone.all([RateAsk(f"c{n}", 0, 1.0, 5) for n in range(30)])
    assert {one.passed for one in alone.all([RateAsk(f"c{n}", 0, 1.0, 5) for n in range(30)])} == {1}


def test_a_cut_wire(dynamo: Dynamo, host: Hosts) -> None:
    """A connection that was closed is tried once more on a new one; two in a row are said; what was counted before its
    answer was lost is not counted for nothing."""
    with wired(dynamo.port) as wire:
        alone = host(url=wire.url)
        assert alone.take(1).remaining == 9
        alone.counter._client.close()
        wire.plan = first(1, Fault("reset", 0), b"UpdateItem")
        assert alone.take(1).remaining in (7, 8)
        alone.counter._client.close()
        wire.plan = first(2, Fault("reset", 0), b"UpdateItem")
        error = alone.refused()
        assert (error.detail["reason"], error.retry_after_s) == ("unreachable", 1.0)
        wire.plan = lambda request: None
        assert alone.take(20).passed <= 7


def test_what_was_given_back_is_not_given_back_twice(dynamo: Dynamo, host: Hosts) -> None:
    """A connection is closed before the answer to an update that gives back two of five: of a quota of seven three are
    used then, and not one; the exchange is counted all the same."""
    with wired(dynamo.port) as wire:
        alone = host(url=wire.url)
        ask = RateAsk("acme", 0, 1.0, 20, 5, quota_per_day=7, quota_day=int(NOW_S // 86_400))
        assert [one.quota.used for one in alone.all([ask]) if one.quota] == [5]
        alone.counter._client.close()
        wire.plan = first(1, Fault("reset", 0), b"UpdateItem")
        back = msgspec.structs.replace(ask, count=0, quota_correction=-2)
        assert next(one.quota.used for one in alone.all([back]) if one.quota) >= 3
        assert wire.plan(b"UpdateItem") is None, "the fault was met"
        assert next(one.quota.used for one in alone.all([msgspec.structs.replace(ask, count=0)]) if one.quota) >= 3


@contextmanager
def failing(dynamo: Dynamo, code: str, status: int = 400) -> Iterator[None]:
    """All requests are refused."""
    dynamo.fail({"target": "", "status": status, "code": code, "times": 1000})
    yield
    dynamo.fail()


def test_refusals(dynamo: Dynamo, host: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its reason; where waiting cannot help there is no `retry_after_s`, and a start ends with the sentence."""
    alone = host()
    found = {"missing": host(name="nowhere").refused(), "another": host(name=dynamo.counters(("pk", "sk"))).refused()}
    for name, code in (
        ("denied", "AccessDeniedException"),
        ("credentials", "ExpiredTokenException"),
        ("key", "KMSAccessDeniedException"),
        ("odd", "SomethingNewException"),
    ):
        with failing(dynamo, code):
            found[name] = alone.refused()
    found["nobody"] = host(url="http://127.0.0.1:1").refused()
    assert {name: (error.detail["reason"], bool(error.retry_after_s)) for name, error in found.items()} == {
        "missing": ("table_missing", False),
        "another": ("other_table", False),
        "denied": ("access_denied", False),
        "credentials": ("no_credentials", False),
        "key": ("access_denied", False),
        "odd": ("refused", False),
        "nobody": ("unreachable", True),
    }
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnavailableError) as caught:
        open_counter(LimitsSettings(url="dynamodb://no-region-yet"))
    assert caught.value.detail["reason"] == "no_region"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://elsewhere.example.com")
    with pytest.raises(UnavailableError) as caught:
        open_counter(LimitsSettings(url="dynamodb://in-the-clear"))
    assert caught.value.detail["reason"] == "in_the_clear"


def test_by_the_settings(dynamo: Dynamo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`limits.url = dynamodb://TABLE` is probed at a start and by the doctor; region and endpoint are AWS's own
    variables; the probe's item leaves too."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamo.url)
    table = dynamo.counters()
    threads = set(threading.enumerate())
    probe(LimitsSettings(url=f"dynamodb://{table}", timeout_ms=2000))
    assert set(threading.enumerate()) <= threads, "who has a thread cannot fork its workers"
    (lies,) = dynamo.client.scan(TableName=table)["Items"]
    assert lies["pk"] == {"S": "client#probe"}
    assert EXPIRES_AT in lies
    with pytest.raises(UnavailableError):
        probe(LimitsSettings(url="dynamodb://nowhere-at-all", timeout_ms=2000))
    folder = DataFolder(tmp_path)
    (found,) = limits(Settings(limits=LimitsSettings(url=f"dynamodb://{table}", timeout_ms=2000)), folder)
    assert (found.state, found.said) == (State.OK, f"counted by dynamodb://{table}, which counts")
    (found,) = limits(Settings(limits=LimitsSettings(url="dynamodb://nowhere-at-all")), folder)
    assert (found.state, "infra/modules/database" in str(found.remedy)) == (State.PROBLEM, True)
    assert load_settings(None, **{"limits.url": "dynamodb://yard_1.x-counters"}).limits.url


def test_the_breaker_leaves_it_alone_and_tries_again(dynamo: Dynamo, host: Hosts) -> None:
    """It is one counter among others: the breaker's probe is what heals it."""
    alone = host()
    breaker = Breaker(alone.counter, 2.0, allow=False)
    alone._loop.run_until_complete(breaker.try_once())
    with failing(dynamo, "InternalServerError", 500), pytest.raises(UnavailableError):
        alone._loop.run_until_complete(breaker.try_once())
    alone._loop.run_until_complete(breaker.try_once())


def test_the_table_is_the_one_that_terraform_makes() -> None:
    """Name, key, attribute of expiry, and what its role may do, are the same on both sides."""
    made = (INFRA / "database" / "dynamodb.tf").read_text()
    (counters,) = re.findall(r"counters = \{(.*?)\n      \}", made, re.DOTALL)
    assert "range   = false" in counters
    assert f'ttl     = "{EXPIRES_AT}"' in counters
    assert 'hash_key                    = "pk"' in made
    assert '"dynamodb://${var.names.counters_table}"' in (INFRA / "database" / "cache.tf").read_text()
    role = (INFRA / "iam" / "policies.tf").read_text()
    (allowed,) = re.findall(r'Sid      = "Counters".*?Action   = \[(.*?)\]', role, re.DOTALL)
    assert {"dynamodb:GetItem", "dynamodb:UpdateItem"} <= set(re.findall(r'"(.*?)"', allowed))
