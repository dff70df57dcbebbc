"""Keys change at once, routes when what they point at can answer, and nothing ever goes back (P2, P6)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.table import KeyTable
from modelyard.core.clock import SystemClock
from modelyard.core.errors import AuthenticationError, UnavailableError
from modelyard.core.settings import SnapshotSettings
from modelyard.core.types import Servable
from modelyard.http.snapshots import ACCEPT_AFTER_S, Snapshots
from modelyard.models.ports import Loads, Version
from modelyard.routing.table import RoutingTable
from modelyard.testing import MemoryKeyStore, MemoryRegistry, SnapshotVersion, servable, version


class StubLoader:
    """Loads at once, or when `go` is set; `slow` versions when their own event is; `failing` ones never."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.loading = threading.Event()
        self.failing: set[str] = set()
        self.slow: dict[str, threading.Event] = {}
        self.marked: set[tuple[str, str]] = set()
        self.routed: frozenset[tuple[str, str]] = frozenset()
        self.leaving: list[Servable] = []
        self.gone: list[Servable] = []
        self._loaded: dict[tuple[str, str], Servable] = {}
        self._known: set[tuple[str, str]] = set()

    def begin(self, versions: tuple[Version, ...], routed: frozenset[tuple[str, str]]) -> None:
        """Queues what is new."""
        self.routed = routed
        self._known |= {(one.model, one.version) for one in versions}
        self.loading.set()

    def state(self) -> Loads:
        """What is loaded and healthy; what waits for its event is pending."""
        pending = {key for key in self._known - self._loaded.keys() if not self._may(key[1])}
        for key in self._known - self._loaded.keys() - pending:
            if key[1] not in self.failing:
                self._loaded[key] = servable(model=key[0], version=key[1])
        healthy = {key: one for key, one in self._loaded.items() if key not in self.marked}
        return Loads(healthy, frozenset(pending), frozenset(self.marked), tuple(self.leaving))

    def dismiss(self, model: str, version: str) -> Servable:
        """One leaves, and is not loaded again."""
        self._known.discard((model, version))
        self.leaving.append(self._loaded.pop((model, version)))
        return self.leaving[-1]

    def let_go(self, servable: Servable) -> None:
        """Notes who may be freed."""
        self.leaving.remove(servable)
        self.gone.append(servable)

    def changes(self) -> int:
        """Grows as events are set."""
        return (
            int(self.go.is_set())
            + sum(event.is_set() for event in self.slow.values())
            + len(self._known)
            + 100 * len(self.leaving)
        )

    def wait(self, changes: int, timeout_s: float) -> None:
        """Waits for what holds the loads up, if that is one event."""
        (self.go if not self.go.is_set() else next(iter(self.slow.values()))).wait(min(timeout_s, 0.01))

    def _may(self, version: str) -> bool:
        return self.go.is_set() and (version not in self.slow or self.slow[version].is_set())


class StubPredictor:
    """What Snapshots writes to; `seen` lists the table versions and how many keys there were at each change."""

    def __init__(self) -> None:
        self.fresh_s = 0.0
        self.in_flight: set[object] = set()
        self.keys = KeyTable(MemoryKeyStore().snapshot())
        self.table = RoutingTable(0, (), {})


class Yard:
    """A set of stores, a loader, and one worker's snapshots."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        shared = SnapshotVersion()
        self.keys = MemoryKeyStore(shared)
        self.registry = MemoryRegistry(shared)
        self.loader = StubLoader()
        self.predictor: Any = StubPredictor()
        self.issuer = KeyIssuer(self.keys, SystemClock())
        self.applied: list[int] = []
        self.asked: list[tuple[str, str]] = []
        self.rung = 0
        self.snapshots = Snapshots(
            self.keys, self.registry.endpoints, self.registry, self.loader, SnapshotSettings(), executor,
            applied=self.applied.append, changes=lambda: self.rung,
            asked=lambda model, version: self.asked.append((model, version)), leave_after_s=0.05,
        )  # fmt: skip

    def publish(self, name: str) -> None:
        """Another version of `tree`."""
        self.registry.add_version(version("tree", name, f'{{"k": {name}}}'.encode()))

    def knows(self, key: str) -> bool:
        """Whether the worker takes this key."""
        try:
            self.predictor.keys.authenticate(key.encode(), SystemClock().now())
        except AuthenticationError:
            return False
        return True

    def serves(self) -> str:
        """The version that an unnamed request gets."""
        route = self.predictor.table.route("tree", None, "id")
        return str(route.servable.version)


@pytest.fixture
def yard() -> Iterator[Yard]:
    """Version 1 of `tree` is published and served."""
    with ThreadPoolExecutor(2) as executor:
        made = Yard(executor)
        made.publish("1")
        made.snapshots.start(made.predictor)
        assert made.serves() == "1"
        yield made
        made.loader.go.set()


async def until(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    """Waits for a condition, bounded."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def following(yard: Yard, test: Callable[[], Any]) -> None:
    """Runs the test while the worker follows the database."""

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(yard.snapshots.follow(yard.predictor))
        try:
            await test()
        finally:
            yard.loader.go.set()
            task.cancel()

    asyncio.run(main())


def test_routes_change_when_their_version_is_loaded_and_keys_before(yard: Yard) -> None:
    """While version 2 loads, version 1 serves on, and a key that was revoked in the same moment is refused already;
    the snapshot counts as applied only when both are in place."""
    key = yard.issuer.create("acme")
    text = key.text.get_secret_value()

    async def test() -> None:
        await until(lambda: yard.knows(text))
        await until(lambda: yard.applied[-1] == yard.keys.version())
        applied = len(yard.applied)
        yard.loader.go.clear()
        yard.loader.loading.clear()
        yard.publish("2")
        yard.registry.endpoints.set_traffic("tree", (("2", 100),))
        yard.issuer.revoke(key.key.id)
        await until(lambda: not yard.knows(text))
        await until(yard.loader.loading.is_set)
        assert yard.serves() == "1"
        assert len(yard.applied) == applied
        yard.loader.go.set()
        await until(lambda: yard.serves() == "2")
        await until(lambda: yard.applied[-1] == yard.keys.version())

    following(yard, test)


def test_a_ring_is_heard_before_the_poll(yard: Yard) -> None:
    """Whoever changes the database rings; the worker looks at once, not at the next poll."""

    async def test() -> None:
        await asyncio.sleep(0)
        looked = yard.predictor.fresh_s
        await until(lambda: yard.predictor.fresh_s > looked)
        yard.publish("2")
        yard.registry.endpoints.set_traffic("tree", (("2", 100),))
        yard.rung += 1
        await until(lambda: yard.serves() == "2", within_s=5)

    following(yard, test)


def test_a_database_that_is_away_changes_nothing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker serves on with what it has, does not call that fresh, and heals."""
    away = True
    version_of = yard.keys.version

    def answer() -> int:
        if away:
            raise OSError("away")
        return version_of()

    monkeypatch.setattr(yard.keys, "version", answer)
    yard.publish("2")
    yard.registry.endpoints.set_traffic("tree", (("2", 100),))

    async def test() -> None:
        nonlocal away
        fresh = yard.predictor.fresh_s
        for _ in range(3):
            yard.rung += 1
            await asyncio.sleep(0.1)
        assert (yard.serves(), yard.predictor.fresh_s) == ("1", fresh)
        away = False
        yard.rung += 1
        await until(lambda: yard.serves() == "2")

    following(yard, test)


def test_readiness_names_what_is_missing(yard: Yard) -> None:
    """A version with traffic that does not load is the reason; one without traffic is none."""
    yard.loader.failing = {"2", "3"}
    yard.publish("2")
    yard.publish("3")
    yard.snapshots.start(yard.predictor)
    assert yard.snapshots.ready_reason == ""
    yard.registry.endpoints.set_traffic("tree", (("1", 90), ("2", 10)))
    yard.snapshots.start(yard.predictor)
    assert "version `2` of the model `tree`" in yard.snapshots.ready_reason


def test_nothing_published_is_not_ready() -> None:
    """A server without a model says so."""
    with ThreadPoolExecutor(1) as executor:
        empty = Yard(executor)
        assert empty.snapshots.ready_reason == "the models are being loaded"
        empty.snapshots.start(empty.predictor)
        assert empty.snapshots.ready_reason == "no model is published"


def test_a_read_is_of_one_version(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change between the reads makes the worker read again: keys and routes are of the same moment."""
    snapshot, changed = yard.keys.snapshot, False

    def change() -> Any:
        nonlocal changed
        seen = snapshot()
        if not changed:
            changed = True
            yard.publish("2")
        return seen

    monkeypatch.setattr(yard.keys, "snapshot", change)
    seen = yard.snapshots.read()
    assert seen.version == yard.keys.version()
    assert [one.version for one in seen.versions] == ["1", "2"]


def test_an_unhealthy_version_keeps_no_other_from_serving(yard: Yard) -> None:
    """K6: once a version is marked it is refused by its own code although no number in the database changed, the
    worker stays ready for the others, and a revived version comes back."""
    yard.publish("1")
    yard.publish("2")

    async def test() -> None:
        await until(lambda: ("tree", "2") in yard.predictor.table.servables)
        yard.loader.marked.add(("tree", "1"))
        yard.rung += 1
        await until(lambda: ("tree", "1") in yard.predictor.table.unhealthy)
        with pytest.raises(UnavailableError) as refused:
            yard.serves()
        assert refused.value.code == "model_unhealthy"
        assert yard.predictor.table.route("tree", "2", "id").servable.version == "2"
        assert yard.snapshots.ready_reason == ""
        yard.loader.marked.clear()
        yard.rung += 1
        await until(lambda: not yard.predictor.table.unhealthy)
        assert yard.serves() == "1"

    following(yard, test)


def test_a_slow_first_load_does_not_bring_an_old_key_back(yard: Yard) -> None:
    """A first snapshot whose models are still being loaded when a newer one is followed: a key that was revoked
    meanwhile stays out when that first load ends."""
    key = yard.issuer.create("acme")
    text = key.text.get_secret_value()
    yard.loader.go.clear()
    yard.publish("2")
    first = threading.Thread(target=yard.snapshots.start, args=(yard.predictor,))
    first.start()

    async def test() -> None:
        await until(lambda: yard.knows(text))
        yard.issuer.revoke(key.key.id)
        yard.rung += 1
        await until(lambda: not yard.knows(text))
        assert first.is_alive()
        yard.loader.go.set()
        await until(lambda: not first.is_alive())
        assert not yard.knows(text)

    following(yard, test)
    first.join(10)


def publish_model(yard: Yard, model: str, name: str) -> None:
    """A version of another model."""
    yard.registry.add_version(version(model, name, f'{{"k": {len(model)}}}'.encode()))


def test_a_start_serves_the_quick_while_the_slow_loads() -> None:
    """P9: with one quick and one slow model the quick one answers at once, the slow one says that it is not ready,
    the worker accepts although it says that it is not ready as a whole, and is ready in the end."""
    with ThreadPoolExecutor(2) as executor:
        yard = Yard(executor)
        yard.loader.slow["9"] = threading.Event()
        yard.publish("1")
        publish_model(yard, "slow", "9")

        async def test() -> None:
            await asyncio.wait_for(yard.snapshots.first(yard.predictor, successor=False), ACCEPT_AFTER_S - 1)
            assert yard.serves() == "1"
            with pytest.raises(UnavailableError) as refused:
                yard.predictor.table.route("slow", None, "id")
            assert (refused.value.code, refused.value.retry_after_s) == ("model_not_ready", 1.0)
            assert "model `slow`" in yard.snapshots.ready_reason
            assert yard.applied == []
            yard.loader.slow["9"].set()
            await until(lambda: yard.snapshots.ready_reason == "")
            assert yard.predictor.table.route("slow", None, "id").servable.version == "9"
            await until(lambda: yard.applied == [yard.keys.version()])

        try:
            following(yard, test)
        finally:
            yard.loader.slow["9"].set()


def test_a_start_that_fails_later_is_said_and_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """P9: what fails in the first snapshot after the worker accepts is an event of the log, and the worker follows
    the models all the same."""
    with ThreadPoolExecutor(2) as executor:
        yard = Yard(executor)
        yard.loader.slow["9"] = threading.Event()
        yard.publish("1")
        publish_model(yard, "slow", "9")

        def refuse(changes: int, timeout_s: float) -> None:
            raise RuntimeError("no thread to wait with")

        async def test() -> None:
            await asyncio.wait_for(yard.snapshots.first(yard.predictor, successor=False), ACCEPT_AFTER_S - 1)
            yard.loader.wait = refuse  # type: ignore[method-assign]
            await until(lambda: "no thread to wait with" in capsys.readouterr().out)
            yard.loader.slow["9"].set()
            await until(lambda: yard.snapshots.ready_reason == "")

        try:
            following(yard, test)
        finally:
            yard.loader.slow["9"].set()


def test_a_successor_accepts_nothing_before_all_is_there() -> None:
    """P2: a worker that replaces another one waits for the slow model too."""
    with ThreadPoolExecutor(2) as executor:
        yard = Yard(executor)
        yard.loader.slow["9"] = threading.Event()
        yard.publish("1")
        publish_model(yard, "slow", "9")

        async def test() -> None:
            first = asyncio.ensure_future(yard.snapshots.first(yard.predictor, successor=True))
            await until(lambda: "tree" in yard.predictor.table.endpoints)
            assert not first.done()
            yard.loader.slow["9"].set()
            await asyncio.wait_for(first, 10)
            assert yard.snapshots.ready_reason == ""

        asyncio.run(test())


def test_a_slow_load_holds_up_no_other_endpoint(yard: Yard) -> None:
    """While a new model loads, the worker stays ready, another endpoint's switch takes effect, and an endpoint whose
    new version loads keeps its old weights, whole (P6)."""
    yard.loader.slow["9"] = threading.Event()

    async def test() -> None:
        publish_model(yard, "slow", "9")
        yard.publish("2")
        yard.registry.endpoints.set_traffic("tree", (("2", 100),))
        await until(lambda: yard.serves() == "2")
        assert yard.snapshots.ready_reason == ""
        assert ("slow", "9") in yard.loader.routed
        yard.publish("9")
        yard.registry.endpoints.set_traffic("tree", (("9", 50), ("2", 50)))
        await until(lambda: ("tree", "9") in yard.loader.routed)
        assert yard.predictor.table.endpoints["tree"].weights == (("2", 100),)
        yard.loader.slow["9"].set()
        await until(lambda: yard.predictor.table.endpoints["tree"].weights == (("9", 50), ("2", 50)))
        await until(lambda: yard.applied[-1] == yard.keys.version())

    following(yard, test)


def test_what_leaves_is_freed_when_nobody_runs_on_it(yard: Yard) -> None:
    """P2: a version that leaves is in no new table at once; it is let go when those who were under way then are
    answered, whoever came after them."""
    yard.publish("2")

    async def test() -> None:
        await until(lambda: ("tree", "2") in yard.predictor.table.servables)
        old = object()
        yard.predictor.in_flight.add(old)
        leaving = yard.loader.dismiss("tree", "2")
        await until(lambda: ("tree", "2") not in yard.predictor.table.servables)
        with pytest.raises(UnavailableError):
            yard.predictor.table.standing_route("tree", "2")
        assert yard.asked == [("tree", "2")]
        await until(lambda: yard.snapshots._going)
        yard.predictor.in_flight.add(object())
        await asyncio.sleep(0.1)
        assert yard.loader.gone == []
        yard.predictor.in_flight.remove(old)
        await until(lambda: yard.loader.gone == [leaving])
        assert yard.snapshots.ready_reason == ""

    following(yard, test)
