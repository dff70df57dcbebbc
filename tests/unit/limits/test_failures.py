"""Failed authentication by address: counted in bounded memory, on a clock that cannot jump."""

from __future__ import annotations

import pytest

from modelyard.limits.failures import FailedAttempts, address_group
from modelyard.testing import FakeClock


def limited(attempts: FailedAttempts, address: str) -> bool:
    error = attempts.refusal(address)
    if error is None:
        return False
    assert error.code == "too_many_attempts"
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 3
    return True


def test_twenty_a_minute_then_it_is_told_to_wait() -> None:
    """20 at once, then one more every 3 s; Retry-After is the moment when the next one counts again."""
    clock = FakeClock()
    attempts = FailedAttempts(clock)
    assert [limited(attempts, "192.0.2.1") for _ in range(22)] == [False] * 20 + [True] * 2
    assert not limited(attempts, "192.0.2.2")
    refused = attempts.refusal("192.0.2.1")
    assert refused is not None
    assert refused.retry_after_s is not None
    clock.advance(refused.retry_after_s + 1e-6)
    assert not limited(attempts, "192.0.2.1")
    assert limited(attempts, "192.0.2.1")
    clock.advance(60)
    assert [limited(attempts, "192.0.2.1") for _ in range(21)] == [False] * 20 + [True]


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_the_wall_clock_does_not_matter(jump_s: float) -> None:
    """F11: a jump of a day neither frees nor locks an address."""
    clock = FakeClock()
    attempts = FailedAttempts(clock)
    for _ in range(20):
        assert not limited(attempts, "192.0.2.1")
    clock.jump_to(clock.now() + jump_s)
    assert limited(attempts, "192.0.2.1")
    assert not limited(attempts, "192.0.2.2")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:0:1::", "2001:0db8:0000:0000:ffff::1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("no:address", "no:address", True),
    ],
)
def test_an_ipv6_subscriber_is_one_caller(one: str, other: str, same: bool) -> None:
    """IPv6 counts by its first 64 bits, IPv4 in IPv6 form as IPv4, anything else as it is, cut."""
    assert (address_group(one) == address_group(other)) is same
    assert len(address_group("x" * 1000)) == 64


def test_memory_is_bounded() -> None:
    """A hundred thousand addresses: no more than the bound are remembered, the latest ones."""
    attempts = FailedAttempts(FakeClock(), max_addresses=100)
    for number in range(100_000):
        attempts.refusal(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        assert len(attempts) <= 100
    for _ in range(19):
        attempts.refusal("10.1.134.159")
    assert limited(attempts, "10.1.134.159")
