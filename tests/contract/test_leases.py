"""One process of all does a thing (F11): who holds it, who takes over, and who may still write."""

from __future__ import annotations

import time

import pytest

from modelyard.core.errors import ConflictError
from modelyard.core.lease import Fence
from modelyard.retention.ports import Cutoffs
from modelyard.storage.stores import Stores

LONG_S, SHORT_S, WITHIN_S = 60.0, 0.05, 10.0


def taken_over(stores: Stores, holder: str) -> Fence:
    """The lease, as soon as the one before has run out."""
    deadline = time.monotonic() + WITHIN_S
    while (fence := stores.leases.acquire("work", holder, LONG_S)) is None:
        assert time.monotonic() < deadline
    return fence


def test_one_holds_it(stores: Stores) -> None:
    """Nobody else gets it meanwhile; another name is another lease; given back, it is free at once."""
    first = stores.leases.acquire("work", "a", LONG_S)
    assert first is not None
    assert stores.leases.acquire("work", "b", LONG_S) is None
    assert stores.leases.acquire("other", "b", LONG_S) is not None
    stores.leases.release(first)
    assert stores.leases.acquire("work", "b", LONG_S) is not None


def test_tokens_only_grow(stores: Stores) -> None:
    """Each holder's token is larger than those before, also the same holder's."""
    tokens = []
    for holder in ("a", "a", "b", "c"):
        fence = stores.leases.acquire("work", holder, LONG_S)
        assert fence is not None
        tokens.append(fence.token)
        if holder != "a" or len(tokens) == 2:
            stores.leases.release(fence)
    assert tokens == sorted(set(tokens))


def test_the_dead_are_followed(stores: Stores) -> None:
    """A lease that ran out goes to whoever asks, and its old holder can neither renew nor write under it."""
    old = stores.leases.acquire("work", "a", SHORT_S)
    assert old is not None
    new = taken_over(stores, "b")
    assert new.token > old.token
    with pytest.raises(ConflictError) as caught:
        stores.leases.renew(old, LONG_S)
    assert caught.value.code == "lease_lost"
    with pytest.raises(ConflictError):
        stores.retention.delete(Cutoffs(0.0, 0.0), 0.0, 1, old)
    stores.leases.release(old)
    assert stores.leases.acquire("work", "c", LONG_S) is None, "releasing what is lost frees nothing"
    stores.leases.renew(new, LONG_S)
    stores.retention.delete(Cutoffs(0.0, 0.0), 0.0, 1, new)


def test_renewed_it_stays(stores: Stores) -> None:
    """Renewal counts from now on."""
    fence = stores.leases.acquire("work", "a", LONG_S)
    assert fence is not None
    stores.leases.renew(fence, LONG_S)
    assert stores.leases.acquire("work", "b", LONG_S) is None


def test_given_back_it_writes_nothing(stores: Stores) -> None:
    """Who has released it is no holder any more."""
    fence = stores.leases.acquire("work", "a", LONG_S)
    assert fence is not None
    stores.leases.release(fence)
    with pytest.raises(ConflictError):
        stores.leases.renew(fence, LONG_S)
