"""Refused requests are counted, in bounded memory, and written as a handful of events."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.audit.refused import MAX_CALLERS, OTHERS, RefusalCounts
from modelyard.core.errors import UnavailableError
from modelyard.testing import MemoryAuditLog


def test_an_attack_is_a_handful_of_events() -> None:
    """A hundred thousand wrong keys from one address are one event with their number; what is written is not
    written again."""
    counts, log = RefusalCounts(), MemoryAuditLog()
    for _ in range(100_000):
        counts.note(401, "key_invalid", "", "192.0.2.1")
    counts.note(403, "scope_missing", "acme", "192.0.2.2")
    assert counts.flush(log.append) == 2
    wrong, forbidden = log.events
    assert (wrong.action, wrong.subject) == ("request:refuse", "address:192.0.2.1")
    assert wrong.after == {"address": "192.0.2.1", "status": 401, "code": "key_invalid", "count": 100_000}
    assert (forbidden.subject, forbidden.after["count"]) == ("client:acme", 1)
    assert counts.flush(log.append) == 0
    assert len(log.events) == 2


def test_many_addresses_take_bounded_room() -> None:
    """Beyond the bound callers are counted together: none is forgotten, the log grows by a bounded number."""
    counts, log = RefusalCounts(), MemoryAuditLog()
    for number in range(5000):
        counts.note(401, "key_invalid", "", f"10.0.{number // 250}.{number % 250}")
    assert counts.flush(log.append) == MAX_CALLERS + 1
    assert sum(event.after["count"] for event in log.events) == 5000
    assert log.events[-1].subject == f"address:{OTHERS}"


def test_a_network_of_addresses_is_one_caller() -> None:
    """All addresses of an IPv6 /64 count together; what is no address counts as it is."""
    counts, log = RefusalCounts(), MemoryAuditLog()
    for number in range(1000):
        counts.note(429, "rate_limited", "", f"2001:db8::{number:x}")
    counts.note(401, "key_missing", "", "fe80::1%eth0")
    counts.note(401, "key_missing", "", "not:an:address")
    counts.flush(log.append)
    assert [event.after["address"] for event in log.events] == ["2001:db8::/64", "fe80::/64", "not:an:address"]


def test_what_the_log_does_not_take_is_kept() -> None:
    """While the database is away nothing is lost and nothing is counted twice."""
    counts, log = RefusalCounts(), MemoryAuditLog()

    def away(*_: object) -> None:
        counts.note(401, "key_invalid", "", "a")
        raise UnavailableError("store_unavailable", "The database is away.")

    for _ in range(3):
        counts.note(401, "key_invalid", "", "a")
    with pytest.raises(UnavailableError):
        counts.flush(away)
    counts.note(401, "key_invalid", "", "b")
    assert counts.flush(log.append) == 2
    assert {event.after["address"]: event.after["count"] for event in log.events} == {"a": 4, "b": 1}


def test_threads_lose_no_count() -> None:
    """Notes from eight threads while another one flushes all arrive."""
    counts, log = RefusalCounts(), MemoryAuditLog()

    def work(_: int) -> None:
        for _number in range(500):
            counts.note(401, "key_invalid", "", "a")
            counts.flush(log.append)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    counts.flush(log.append)
    assert sum(event.after["count"] for event in log.events) == 4000
    assert log.verify().sound
