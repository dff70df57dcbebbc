"""S2: guessing keys opens nothing, costs little, and locks nobody out (P7, P4)."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from modelyard.auth.keys import KeyIssuer, new_key
from modelyard.auth.table import KeyTable
from modelyard.core.clock import SystemClock
from modelyard.core.errors import AuthenticationError
from modelyard.limits.failures import FailedAttempts
from modelyard.testing import MemoryKeyStore

MOST_TRACED_BYTES = 1024 * 1024


@pytest.mark.parametrize("addresses", [1, 100])
@pytest.mark.parametrize("tries", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_wrong_keys_open_nothing(addresses: int, tries: int) -> None:
    """S2: so many wrong keys, well-formed and not, from 1 and from 100 addresses: 0 hits, all but 20 an address (and
    what a minute gives back) told to wait, bounded memory, and a valid key passes from each of these addresses."""
    issuer = KeyIssuer(store := MemoryKeyStore(), SystemClock())
    good = issuer.create("acme").text.get_secret_value().encode()
    table, attempts = KeyTable(store.snapshot()), FailedAttempts(SystemClock())
    wrong = [new_key().text.encode() for _ in range(500)] + [b"mdy_" + bytes(str(n), "ascii") for n in range(500)]
    hits = told = 0
    started_s, wall_s = time.process_time(), time.monotonic()
    for turn in range(tries):
        try:
            table.authenticate(wrong[turn % len(wrong)], 0.0)
            hits += 1
        except AuthenticationError:
            told += attempts.refusal(f"192.0.2.{turn % addresses}") is not None
    spent_s, wall_s = time.process_time() - started_s, time.monotonic() - wall_s
    each_us = spent_s / tries * 1e6
    print(f"S2: {tries} tries from {addresses} addresses: {hits} hits, {told} limited, {each_us:.1f} us each")
    assert hits == 0
    assert tries - told <= addresses * (20 + wall_s / 3 + 1)
    assert len(attempts) == addresses
    for number in range(addresses):
        assert table.authenticate(good, 0.0).client == "acme"
        assert attempts.refusal(f"192.0.2.{number}") is not None, "the address is limited all the same"


def test_a_million_addresses_do_not_fill_the_memory() -> None:
    """P4: as many IPv6 networks as one likes: the limiter forgets the oldest, and stays below a fixed size."""
    attempts = FailedAttempts(SystemClock(), max_addresses=1000)
    tracemalloc.start()
    for number in range(20_000):
        attempts.refusal(f"2001:db8:{number >> 8:x}:{number & 255:x}::1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(attempts) == 1000
    assert peak < MOST_TRACED_BYTES
