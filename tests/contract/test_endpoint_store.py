"""The promises of routing.ports.EndpointStore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import ConflictError, NotFoundError
from modelyard.core.settings import Settings
from modelyard.routing.ports import Endpoint
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import version


def _publish(stores: Stores) -> None:
    for name in ("1", "2", "3"):
        stores.registry.add_version(version("tree", name, name.encode()))
    stores.registry.add_version(version("bush", "9"))


def test_endpoints_are_listed_by_name(stores: Stores) -> None:
    """All endpoints, sorted by name; none at first."""
    assert stores.endpoints.endpoints() == ()
    _publish(stores)
    assert [endpoint.name for endpoint in stores.endpoints.endpoints()] == ["bush", "tree"]


def test_traffic_is_replaced_in_the_order_given(stores: Stores) -> None:
    """The weights are exactly those given, in that order; the revision and the snapshot version grow."""
    _publish(stores)
    before = stores.keys.version()
    after = stores.endpoints.set_traffic("tree", (("3", 90), ("1", 10)))
    assert after == stores.endpoints.endpoint("tree") == Endpoint("tree", "tree", (("3", 90), ("1", 10)), 2)
    assert stores.keys.version() == before + 1
    assert stores.endpoints.set_traffic("tree", (("2", 100),)).revision == 3
    assert stores.endpoints.endpoint("tree").weights == (("2", 100),)
    assert stores.endpoints.endpoint("bush").weights == (("9", 100),)


def test_a_version_may_have_no_share(stores: Stores) -> None:
    """A share of 0 is kept: the arm stays where it was."""
    _publish(stores)
    assert stores.endpoints.set_traffic("tree", (("1", 0), ("2", 100))).weights == (("1", 0), ("2", 100))


@pytest.mark.parametrize(
    ("name", "weights", "code"),
    [
        ("none", (("1", 100),), "endpoint_not_found"),
        ("tree", (("1", 50), ("9", 50)), "version_not_found"),
    ],
)
def test_traffic_to_what_is_not_there_is_refused(
    stores: Stores, name: str, weights: tuple[tuple[str, int], ...], code: str
) -> None:
    """Unknown endpoint, or a version that is another model's: refused, nothing changed."""
    _publish(stores)
    before = stores.endpoints.endpoints(), stores.keys.version()
    with pytest.raises(NotFoundError) as caught:
        stores.endpoints.set_traffic(name, weights)
    assert caught.value.code == code
    assert (stores.endpoints.endpoints(), stores.keys.version()) == before


def test_a_change_of_what_was_seen_is_refused_once_it_is_otherwise(stores: Stores) -> None:
    """With the revision that was seen: the first of two wins, the second is told, and changes nothing (D8)."""
    _publish(stores)
    assert stores.endpoints.set_traffic("tree", (("2", 100),), 1).revision == 2
    before = stores.keys.version()
    with pytest.raises(ConflictError) as caught:
        stores.endpoints.set_traffic("tree", (("3", 100),), 1)
    assert (caught.value.code, caught.value.detail["expected"]) == ("edit_conflict", 2)
    assert stores.endpoints.endpoint("tree").weights == (("2", 100),)
    assert stores.keys.version() == before


def _deploy(stores: Stores, number: int) -> int:
    """Switches whatever it saw, twenty times; how often it won."""
    won = 0
    for _ in range(20):
        seen = stores.endpoints.endpoint("tree").revision
        try:
            stores.endpoints.set_traffic("tree", ((str(number + 1), 100),), seen)
            won += 1
        except ConflictError:
            pass
    return won


def test_of_two_operators_at_once_one_wins(processes: Callable[..., list[Any]], data: Path) -> None:
    """Two processes deploy what they saw (D8): each revision has one winner, no change is lost unseen."""
    stores = open_stores(Settings(), data)
    _publish(stores)
    won = processes(2, _deploy)
    assert stores.endpoints.endpoint("tree").revision == 1 + sum(won)
    assert sum(won) >= 20
    stores.close()


def test_an_unknown_endpoint_is_not_found(stores: Stores) -> None:
    """Asking for it says so."""
    with pytest.raises(NotFoundError) as caught:
        stores.endpoints.endpoint("none")
    assert caught.value.code == "endpoint_not_found"


def _switch(stores: Stores, number: int) -> int:
    for share in range(1, 21):
        stores.endpoints.set_traffic("tree", (("1", share), ("2", 100 - share)) if number else (("3", 100),))
    return number


def test_two_processes_switch_without_losing_a_revision(processes: Callable[..., list[Any]], data: Path) -> None:
    """Forty switches from two processes are forty revisions, and the last state is one of the two, never a mix."""
    stores = open_stores(Settings(), data)
    _publish(stores)
    before = stores.keys.version()
    assert processes(2, _switch) == [0, 1]
    endpoint = stores.endpoints.endpoint("tree")
    assert endpoint.revision == 41
    assert stores.keys.version() == before + 40
    assert endpoint.weights in ((("3", 100),), (("1", 20), ("2", 80)))
    stores.close()


def test_an_interrupted_switch_leaves_the_old_traffic(data: Path, sweep: Callable[..., int]) -> None:
    """Weights, revision and snapshot version change together or not at all (promise P6)."""
    stores = open_stores(Settings(), data)
    _publish(stores)
    stores.close()

    def switch(stores: Stores) -> None:
        stores.endpoints.set_traffic("tree", (("1", 10), ("2", 90)))

    assert sweep(switch, lambda stores: (stores.endpoints.endpoints(), stores.keys.version())) >= 4
