"""Failed authentication, by address: counted, and past a bound answered without further work.

The limiter is asked only after a key was looked up and not found, so it cannot refuse a valid key, from whatever
address. It does not decide who comes in; it keeps the price of guessing low and tells whoever does it by mistake to
wait. Guessing 256 random bits is hopeless at any rate.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import AddressValueError, IPv6Address

from modelyard.core.clock import Clock
from modelyard.core.errors import AuthenticationError

MOST = 20
PERIOD_S = 60.0
MAX_ADDRESSES = 10_000
"""Addresses remembered per worker, at about 200 bytes each; the one that failed longest ago is forgotten first."""
MAX_ADDRESS_CHARS = 64


class FailedAttempts:
    """Failures per address of one worker: `most` at once, then one more every `period_s / most` seconds (the generic
    cell rate algorithm, as `limits.gcra`, on the monotonic clock). An IPv6 address counts as its /64, which is what
    one subscriber gets (RFC 6177). Not safe for threads; at most `max_addresses` are remembered."""

    __slots__ = ("_arrivals", "_depth_s", "_interval_s", "_max_addresses", "_monotonic")

    def __init__(
        self, clock: Clock, most: int = MOST, period_s: float = PERIOD_S, max_addresses: int = MAX_ADDRESSES
    ) -> None:
        self._monotonic = clock.monotonic
        self._interval_s = period_s / most
        self._depth_s = period_s
        self._max_addresses = max_addresses
        self._arrivals: OrderedDict[str | bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def refusal(self, address: str) -> AuthenticationError | None:
        """Counts a failure of this address; beyond its share what to answer, AuthenticationError
        ("too_many_attempts"), instead of what is wrong with the key."""
        now, group = self._monotonic(), address_group(address)
        arrivals = self._arrivals
        arrival = max(arrivals.get(group, now), now)
        if arrival + self._interval_s > now + self._depth_s + 1e-9:
            arrivals.move_to_end(group)
            return AuthenticationError(
                "too_many_attempts",
                "Too many wrong keys came from this address; a valid key still works.",
                retry_after_s=arrival + self._interval_s - now - self._depth_s,
                field="x-api-key",
            )
        arrivals[group] = arrival + self._interval_s
        arrivals.move_to_end(group)
        if len(arrivals) > self._max_addresses:
            arrivals.popitem(last=False)
        return None


def address_group(address: str) -> str | bytes:
    """What failures are counted by: an IPv4 address itself, an IPv6 address's first 64 bits, anything else as it
    is."""
    if ":" not in address:
        return address[:MAX_ADDRESS_CHARS]
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address[:MAX_ADDRESS_CHARS]
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else parsed.packed[:8]
