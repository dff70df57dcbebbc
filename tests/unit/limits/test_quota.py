"""Daily quotas: exact, by the UTC day, whatever the wall clock does (F11, promise P10)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import LimitError, OverloadError
from modelyard.core.events import Event
from modelyard.limits.clients import ClientLimits
from modelyard.limits.concurrency import ClientPermits
from modelyard.limits.quota import DAY_S, DAYS, REFUSED, QuotaKeeper, Quotas, SharedQuota, Used, utc_day
from modelyard.testing import FakeClock

TODAY = utc_day(FakeClock().now())


@pytest.fixture
def shared() -> Iterator[SharedQuota]:
    descriptor = SharedQuota.create(1000)
    quota = SharedQuota(descriptor)
    yield quota
    quota.close()
    os.close(descriptor)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(20_000, 20_003)), max_size=60), st.integers(1, 8))
def test_every_verdict_is_the_models(takes: list[tuple[int, int]], most: int) -> None:
    """For any clients and any order of four days in a row: allowed while the day's count is below the quota, and what
    is left is told."""
    descriptor = SharedQuota.create(3)
    quota = SharedQuota(descriptor)
    counts: Counter[tuple[int, int]] = Counter()
    for slot, day in takes:
        allowed = counts[slot, day] < most
        counts[slot, day] += allowed
        assert quota.take(slot, most, day) == (most - counts[slot, day] if allowed else REFUSED)
        assert quota.used(slot, day) == counts[slot, day]
    assert {(use.slot, use.day): use.count for use in quota.counts(range(3))} == {k: n for k, n in counts.items() if n}
    quota.close()
    os.close(descriptor)


def test_a_refusal_waits_until_midnight_utc(shared: SharedQuota) -> None:
    """quota_exhausted says how long it is to the next UTC day, never more than a day; at that moment it passes."""
    clock = FakeClock(now=20_000 * DAY_S + 3600.5)
    quotas = Quotas(shared, clock)
    assert [quotas.charge(5, 2, "acme") for _ in range(2)] == [1, 0]
    with pytest.raises(LimitError) as refused:
        quotas.charge(5, 2, "acme")
    assert refused.value.code == "quota_exhausted"
    assert refused.value.retry_after_s == DAY_S - 3600.5
    assert refused.value.detail == {"field": "quota", "limit": 2, "remaining": 0, "reset_s": 82_800}
    assert quotas.left(5, 2) == (0, DAY_S - 3600.5)
    clock.advance(DAY_S - 3600.5)
    assert quotas.charge(5, 2, "acme") == 1
    assert quotas.left(5, 2) == (1, DAY_S)


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S, -3 * DAY_S, 3 * DAY_S])
def test_a_clock_that_jumps_gives_and_takes_nothing(shared: SharedQuota, jump_s: float) -> None:
    """F11: a day or three either way and back: the other day has its own quota, this one's count is as it was."""
    clock = FakeClock()
    quotas = Quotas(shared, clock)
    now = clock.now()
    for _ in range(3):
        quotas.charge(5, 5, "acme")
    for _ in range(4):
        clock.jump_to(now + jump_s)
        assert quotas.left(5, 5)[0] in (5, 4, 3, 2)
        quotas.charge(5, 5, "acme")
        clock.jump_to(now)
        assert quotas.left(5, 5)[0] == 2


@pytest.mark.parametrize("now", [-1e9, 0.0, 1e12, 1e18])
def test_a_mad_clock_locks_nobody_out(shared: SharedQuota, now: float) -> None:
    """Far ahead or before 1970: quotas go on, and are right once the clock is."""
    clock = FakeClock()
    quotas = Quotas(shared, clock)
    right = clock.now()
    clock.jump_to(now)
    assert quotas.charge(5, 2, "acme") == 1
    assert 0 < quotas.left(5, 2)[1] <= DAY_S
    clock.jump_to(right)
    assert quotas.charge(5, 2, "acme") == 1


def test_a_smaller_quota_counts_at_once(shared: SharedQuota) -> None:
    """What was used stays used: a quota that is changed in the middle of the day means the whole day."""
    for _ in range(6):
        shared.take(5, 10, TODAY)
    assert shared.take(5, 6, TODAY) == REFUSED
    assert shared.take(5, 8, TODAY) == 1


def test_what_was_kept_is_put_back(shared: SharedQuota) -> None:
    """Restored counts go on; of two days in one place the one nearer to today wins, whatever the order."""
    for kept in ([Used(1, TODAY, 7), Used(1, TODAY - 4, 9)], [Used(2, TODAY - 4, 9), Used(2, TODAY, 7)]):
        shared.restore([*kept, Used(kept[0].slot, TODAY + 1, 3)], TODAY)
    for slot in (1, 2):
        assert shared.take(slot, 10, TODAY) == 2
        assert shared.used(slot, TODAY + 1) == 3


def test_only_what_changed_is_kept_again(shared: SharedQuota) -> None:
    """A count is handed out until it was stored, then not before it changes."""
    keeper = QuotaKeeper(shared)
    clients = {"a": 1, "b": 2, "c": 3}
    assert keeper.changed(clients) == []
    shared.take(1, 5, TODAY)
    shared.take(2, 5, TODAY)
    found = keeper.changed(clients)
    assert sorted(found) == [("a", TODAY, 1), ("b", TODAY, 1)] == sorted(keeper.changed(clients))
    keeper.kept(found)
    shared.take(2, 5, TODAY)
    assert keeper.changed(clients) == [("b", TODAY, 2)]


def test_what_is_remembered_as_kept_is_bounded(shared: SharedQuota) -> None:
    """A client that comes on some days only, and one that is gone, are not remembered for ever: what the counts do not
    hold any more is forgotten."""
    keeper = QuotaKeeper(shared)
    for day in range(TODAY, TODAY + 200, 3):
        shared.take(1, 5, day)
        shared.take(2, 5, day)
        keeper.kept(keeper.changed({"a": 1, "b": 2}))
        assert keeper.changed({"a": 1, "b": 2}) == []
    assert keeper.changed({"a": 1}) == []
    assert len(keeper._kept) <= DAYS


@pytest.mark.parametrize("on_failure", ["refuse", "allow"])
def test_a_counter_that_fails(on_failure: Any) -> None:
    """A slot beyond the table: `limits.on_failure` decides, and it is said once."""
    descriptor = SharedQuota.create(2)
    said: list[str] = []
    quota = SharedQuota(descriptor, on_failure=on_failure, emit=lambda event, *_, **__: said.append(event))
    for _ in range(3):
        if on_failure == "allow":
            assert quota.take(99, 5, TODAY) == 5
        else:
            with pytest.raises(OverloadError):
                quota.take(99, 5, TODAY)
    assert said == [Event.LIMIT_COUNTER_FAILED]
    quota.close()
    os.close(descriptor)


def test_permits_of_a_client_are_shared_out() -> None:
    """ceil(c / workers) on each worker: refused beyond, given back exactly once, nobody else touched."""
    permits = ClientPermits(workers=2)
    for _ in range(3):
        permits.take(1, 5, "acme")
    with pytest.raises(LimitError) as refused:
        permits.take(1, 5, "acme")
    assert (refused.value.code, refused.value.retry_after_s) == ("concurrency_exceeded", 1.0)
    assert (refused.value.detail["limit"], refused.value.detail["remaining"]) == (5, 0)
    assert permits.left(1, 5) == 0
    permits.take(2, 1, "other")
    permits.release(1)
    assert permits.left(1, 5) == 1
    permits.take(1, 5, "acme")
    for _ in range(3):
        permits.release(1)
    with pytest.raises(ValueError, match="nobody holds"):
        permits.release(1)
    assert ClientPermits(workers=8).left(7, 3) == 1, "no worker refuses all of a client's requests"


def test_a_refused_prediction_takes_nothing(shared: SharedQuota) -> None:
    """Beyond the concurrency the quota is not charged; beyond the quota no permit is held."""
    limits = ClientLimits(Quotas(shared, FakeClock()), ClientPermits(1))
    limits.admit(1, 2, 1, "acme")
    with pytest.raises(LimitError, match="in flight"):
        limits.admit(1, 2, 1, "acme")
    assert shared.used(1, TODAY) == 1
    limits.release(1)
    limits.admit(1, 2, 1, "acme")
    limits.release(1)
    for _ in range(3):
        with pytest.raises(LimitError, match="quota"):
            limits.admit(1, 2, 1, "acme")
    assert limits.permits.left(1, 1) == 1
    limits.admit(1, None, None, "acme")
    assert limits.permits.left(1, 1) == 1


def test_a_count_of_others_is_taken_over_and_never_lowered(shared: SharedQuota) -> None:
    """`raise_to`: at least so much; less changes nothing, another day begins anew, a slot beyond the table is left."""
    shared.take(5, 10, TODAY)
    shared.raise_to(5, TODAY, 7)
    shared.raise_to(5, TODAY, 3)
    assert shared.used(5, TODAY) == 7
    assert shared.take(5, 10, TODAY) == 2
    shared.raise_to(5, TODAY + DAYS, 1)
    assert (shared.used(5, TODAY), shared.used(5, TODAY + DAYS)) == (0, 1)
    shared.raise_to(10**6, TODAY, 1)
