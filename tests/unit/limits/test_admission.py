"""Permits: exact, and returned exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.limits.admission import Permits


def test_exactly_the_surplus_is_refused() -> None:
    """L4: capacity q, q + k at once: exactly k are refused."""
    permits = Permits(8)
    assert sum(not permits.take() for _ in range(10)) == 2


@given(st.lists(st.booleans()), st.integers(1, 5))
def test_the_count_is_always_right(takes: list[bool], capacity: int) -> None:
    """Whatever the order of takes and releases, as many are out as were taken and not given back."""
    permits, out = Permits(capacity), 0
    for take in takes:
        if take:
            assert permits.take() == (out < capacity)
            out = min(out + 1, capacity)
        elif out:
            permits.release()
            out -= 1
        assert permits.taken == out


def test_a_second_release_is_an_error() -> None:
    """A permit returned twice would let one too many in later: it is refused loudly."""
    permits = Permits(1)
    permits.take()
    permits.release()
    with pytest.raises(ValueError, match="nobody holds"):
        permits.release()
    with pytest.raises(ValueError, match="at least one"):
        Permits(0)
