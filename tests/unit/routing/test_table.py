"""The routing table: one snapshot, and a clear refusal for what it does not hold."""

from __future__ import annotations

from contextlib import suppress

import pytest

from modelyard.core.errors import NotFoundError, UnavailableError
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable
from modelyard.testing import servable

ONE, TWO = servable(version="1"), servable(version="2")
LOADED = {("tree", "1"): ONE, ("tree", "2"): TWO}


def table(*weights: tuple[str, int], known: tuple[tuple[str, str], ...] = ()) -> RoutingTable:
    return RoutingTable(7, [Endpoint("tree", "tree", weights)], LOADED, known)


def test_one_arm_takes_everything() -> None:
    """The only arm with weight gets every request, under its own position."""
    routed = table(("1", 0), ("2", 100))
    for n in range(100):
        route = routed.route("tree", None, f"id-{n}")
        assert (route.arm, route.servable) == (1, TWO)


def test_two_arms_share_by_prediction_id() -> None:
    """The prediction's id decides, the same way each time, and both arms are reached."""
    routed = table(("1", 50), ("2", 50))
    first = [routed.route("tree", None, f"id-{n}").arm for n in range(200)]
    assert first == [routed.route("tree", None, f"id-{n}").arm for n in range(200)]
    assert set(first) == {0, 1}


def test_a_named_version_is_no_arm() -> None:
    """Whoever names the version gets it, whatever the weights, with arm -1."""
    route = table(("1", 100), ("2", 0)).route("tree", "2", "id")
    assert (route.arm, route.servable) == (-1, TWO)


def test_unknown_names_are_refused() -> None:
    """404 for an unknown model, whether or not a version is named; 404 for an unknown version with those there are."""
    routed = table(("1", 100))
    for version in (None, "1"):
        with pytest.raises(NotFoundError) as refused:
            routed.route("bush", version, "id")
        assert (refused.value.code, refused.value.detail["got"]) == ("model_not_found", "bush")
    with pytest.raises(NotFoundError) as refused:
        routed.route("tree", "3", "id")
    assert (refused.value.code, refused.value.detail["expected"]) == ("version_not_found", ["1", "2"])


@pytest.mark.parametrize("version", [None, "3"])
def test_a_version_that_is_not_loaded_can_be_waited_for(version: str | None) -> None:
    """A known version that this worker has not loaded: 503 with a time to come back, named or by weight."""
    with pytest.raises(UnavailableError) as refused:
        table(("3", 100), known=(("tree", "3"),)).route("tree", version, "id")
    assert (refused.value.code, refused.value.retry_after_s) == ("model_not_ready", 1.0)


def test_an_arm_that_is_not_loaded_hurts_no_other() -> None:
    """Of two arms the loaded one answers its share."""
    routed = table(("1", 50), ("3", 50), known=(("tree", "3"),))
    arms = []
    for n in range(100):
        try:
            arms.append(routed.route("tree", None, f"id-{n}").arm)
        except UnavailableError:
            arms.append(-1)
    assert 30 < arms.count(0) < 70
    assert set(arms) == {0, -1}


def test_an_old_route_outlives_its_table() -> None:
    """A request keeps the version that its route gave it; the next table is another object."""
    before = table(("1", 100))
    held = before.route("tree", None, "id")
    after = table(("2", 100))
    assert held.servable is ONE
    assert after.route("tree", None, "id").servable is TWO


def test_a_named_version_that_rests_is_asked_for() -> None:
    """By predictions alone: a look at what is ready asks for nothing, nor does what is unknown or unhealthy."""
    asked: list[tuple[str, str]] = []
    known = [("tree", "1"), ("tree", "2"), ("tree", "3")]
    table = RoutingTable(
        1, (Endpoint("oak", "tree", (("1", 100),)),), {("tree", "1"): servable()}, known, [("tree", "3")],
        lambda model, version: asked.append((model, version)),
    )  # fmt: skip
    for version in ("1", "2", "3", "4"):
        with suppress(UnavailableError, NotFoundError):
            table.route("oak", version, "")
    assert asked == []
    for version in ("1", "2", "3", "4"):
        with suppress(UnavailableError, NotFoundError):
            table.standing_route("oak", version)
    assert asked == [("tree", "2")]
