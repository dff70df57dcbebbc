"""The promises of auth.ports.KeyStore."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.auth.ports import ClientBounds
from modelyard.auth.scopes import Rate
from modelyard.core.errors import ConflictError, InternalError, NotFoundError, UnavailableError
from modelyard.core.settings import LimitsSettings, Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import key, memory_stores


def test_new_client_has_the_default_rate_and_slots_are_dense(stores: Stores) -> None:
    """Clients get slots 0, 1, 2, … and the store's default rate where none is given."""
    made = [stores.keys.ensure_client(name, None, None, None) for name in ("a", "b", "c")]
    assert [client.slot for client in made] == [0, 1, 2]
    assert {(client.rate_count, client.rate_period_s, client.burst) for client in made} == {(1000, 1.0, 1000)}
    assert len({client.id for client in made}) == 3


def test_ensure_client_changes_only_what_is_given(stores: Stores) -> None:
    """The same name is the same client; None keeps a value; the version moves only when something changed."""
    first = stores.keys.ensure_client("a", 10, 60.0, 20)
    assert (first.rate_count, first.rate_period_s, first.burst) == (10, 60.0, 20)
    before = stores.keys.version()
    assert stores.keys.ensure_client("a", None, None, None) == first
    assert stores.keys.version() == before
    changed = stores.keys.ensure_client("a", None, None, 5)
    assert (changed.id, changed.slot, changed.rate_count, changed.burst) == (first.id, first.slot, 10, 5)
    assert stores.keys.version() > before
    assert stores.keys.snapshot().clients == (changed,)


def test_a_key_comes_back_as_it_was_stored(stores: Stores) -> None:
    """Every field of a key survives, times to the last bit."""
    client = stores.keys.ensure_client("a", None, None, None)
    given = key(
        client.id,
        "k1",
        scopes=("admin", "predict"),
        models=("tree*", "ü?"),
        created_at=1_700_000_000.123456,
        expires_at=2e9,
    )
    stores.keys.add(given)
    assert stores.keys.snapshot().keys == (given,)


def test_every_change_bumps_the_version_and_the_snapshot_carries_it(stores: Stores) -> None:
    """Client, key and revocation each move the version, and the snapshot's version is the one that is polled."""
    seen = [stores.keys.version()]
    client = stores.keys.ensure_client("a", None, None, None)
    seen.append(stores.keys.version())
    stores.keys.add(key(client.id))
    seen.append(stores.keys.version())
    stores.keys.revoke("k1", 5.0)
    seen.append(stores.keys.version())
    assert seen == sorted(set(seen))
    assert stores.keys.snapshot().version == seen[-1]


def test_revoking_twice_keeps_the_first_time(stores: Stores) -> None:
    """Revocation is idempotent: the first time stays, the second call changes nothing."""
    client = stores.keys.ensure_client("a", None, None, None)
    stores.keys.add(key(client.id))
    assert stores.keys.revoke("k1", 5.0).revoked_at == 5.0
    before = stores.keys.version()
    assert stores.keys.revoke("k1", 9.0).revoked_at == 5.0
    assert stores.keys.version() == before


def test_unknown_key_is_not_found(stores: Stores) -> None:
    """Revoking what is not there says so and changes nothing."""
    before = stores.keys.version()
    with pytest.raises(NotFoundError) as caught:
        stores.keys.revoke("nope", 5.0)
    assert caught.value.code == "key_not_found"
    assert stores.keys.version() == before


@pytest.mark.parametrize("wrong", ["client", "id", "secret"])
def test_a_key_that_contradicts_the_store_is_refused_whole(stores: Stores, wrong: str) -> None:
    """A key of an unknown client, with a taken id, or with a taken hash changes nothing."""
    client = stores.keys.ensure_client("a", None, None, None)
    good = key(client.id)
    stores.keys.add(good)
    before = stores.keys.snapshot()
    bad = {"client": key("c-none", "k2"), "id": key(client.id, secret=b"x"), "secret": key(client.id, "k2")}[wrong]
    if wrong == "secret":
        bad = key(client.id, "k2").__class__(
            **{f: getattr(bad, f) for f in bad.__struct_fields__} | {"secret_hash": good.secret_hash}
        )
    with pytest.raises(InternalError):
        stores.keys.add(bad)
    assert stores.keys.snapshot() == before


def test_a_slot_is_never_given_twice(stores: Stores) -> None:
    """A client with a live key keeps its slot while others come, whatever is revoked in between."""
    alive = stores.keys.ensure_client("alive", None, None, None)
    stores.keys.add(key(alive.id, "live"))
    for number in range(20):
        client = stores.keys.ensure_client(f"c{number}", None, None, None)
        stores.keys.add(key(client.id, f"k{number}"))
        stores.keys.revoke(f"k{number}", float(number))
    slots = [client.slot for client in stores.keys.snapshot().clients]
    assert slots == list(range(21))
    assert stores.keys.ensure_client("alive", None, None, None).slot == alive.slot == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_clients_beyond_the_table_are_refused(kind: str, tmp_path: Path) -> None:
    """`limits.max_clients` is the most; the refusal names it, and known clients go on."""
    settings = Settings(limits=LimitsSettings(max_clients=16))
    stores = memory_stores(max_clients=16) if kind == "memory" else open_stores(settings, tmp_path)
    for number in range(16):
        stores.keys.ensure_client(f"c{number}", None, None, None)
    with pytest.raises(UnavailableError) as caught:
        stores.keys.ensure_client("one too many", None, None, None)
    assert caught.value.detail["field"] == "limits.max_clients"
    assert stores.keys.ensure_client("c3", None, None, None).slot == 3
    stores.close()


def test_threads_get_one_client_each(stores: Stores) -> None:
    """Eight threads that ask for the same twenty names at once get twenty clients with slots 0 to 19."""

    def ask(_thread: int) -> list[str]:
        return [stores.keys.ensure_client(f"c{number}", None, None, None).id for number in range(20)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert sorted(client.slot for client in stores.keys.snapshot().clients) == list(range(20))


def _make_clients(stores: Stores, number: int) -> list[tuple[str, int]]:
    names = [f"shared{i}" for i in range(10)] + [f"own{number}-{i}" for i in range(10)]
    made = [stores.keys.ensure_client(name, None, None, None) for name in names]
    for client in made[10:]:
        stores.keys.add(key(client.id, f"{client.name}-key"))
    return [(client.name, client.slot) for client in made]


def test_processes_agree_on_slots(processes: Callable[..., list[Any]], data: Path) -> None:
    """Three processes that make clients at once: the shared names are the same client for all, slots are dense."""
    answers = processes(3, _make_clients)
    assert all(isinstance(answer, list) for answer in answers), answers
    assert answers[0][:10] == answers[1][:10] == answers[2][:10]
    stores = open_stores(Settings(), data)
    snapshot = stores.keys.snapshot()
    stores.close()
    assert [client.slot for client in snapshot.clients] == list(range(40))
    assert len(snapshot.keys) == 30
    assert snapshot.version == 40 + 30


def test_an_interrupted_change_leaves_the_old_state(sweep: Callable[..., int]) -> None:
    """A process that fails or dies at any statement of `add` leaves neither the key nor a moved version."""

    def add(stores: Stores) -> None:
        client = next(iter(stores.keys.snapshot().clients), None) or stores.keys.ensure_client("a", None, None, None)
        stores.keys.add(key(client.id))

    def view(stores: Stores) -> Any:
        snapshot = stores.keys.snapshot()
        return snapshot.keys, snapshot.version - len(snapshot.clients)

    assert sweep(add, view) >= 4


def test_an_interrupted_revocation_leaves_the_key_alive(data: Path, sweep: Callable[..., int]) -> None:
    """A revocation is there with its version, or not at all."""
    stores = open_stores(Settings(), data)
    stores.keys.add(key(stores.keys.ensure_client("a", None, None, None).id))
    stores.close()
    assert sweep(lambda stores: stores.keys.revoke("k1", 5.0), lambda stores: stores.keys.snapshot()) >= 4


def test_bounds_of_a_client_are_set_kept_and_taken_away(stores: Stores) -> None:
    """Quota, concurrency and models: unset keeps, None takes away, and every change moves the version."""
    first = stores.keys.ensure_client("a", None, None, None, ClientBounds(10, 2, ("tree*",)))
    assert (first.quota_per_day, first.concurrency, first.models) == (10, 2, ("tree*",))
    before = stores.keys.version()
    assert stores.keys.ensure_client("a", None, None, None) == first
    assert stores.keys.version() == before
    changed = stores.keys.ensure_client("a", None, None, None, ClientBounds(quota_per_day=None))
    assert (changed.quota_per_day, changed.concurrency, changed.models) == (None, 2, ("tree*",))
    assert stores.keys.snapshot().clients == (changed,)
    assert stores.keys.version() > before
    new = stores.keys.ensure_client("b", None, None, None)
    assert (new.quota_per_day, new.concurrency, new.models) == (None, None, ("*",))


def test_a_replaced_key_ends_when_it_was_told_to(stores: Stores) -> None:
    """The successor is stored, the old key expires at the given time, or earlier if it would have anyway."""
    client = stores.keys.ensure_client("a", None, None, None)
    stores.keys.add(key(client.id, "k1", created_at=0.0))
    stores.keys.add(key(client.id, "k2", created_at=10.0, replaces="k1"), 60.0)
    stores.keys.add(key(client.id, "k3", created_at=20.0, replaces="k2", expires_at=25.0), 90.0)
    stores.keys.add(key(client.id, "k4", created_at=21.0, replaces="k3"), 90.0)
    found = {found.id: (found.replaces, found.expires_at) for found in stores.keys.snapshot().keys}
    assert found == {"k1": (None, 60.0), "k2": ("k1", 90.0), "k3": ("k2", 25.0), "k4": ("k3", None)}


@pytest.mark.parametrize("state", ["revoked", "expired", "replaced", "gone"])
def test_only_an_active_key_is_replaced_and_once(stores: Stores, state: str) -> None:
    """A key that is revoked, expired, replaced by an active key or unknown: refused, nothing changes. Once the
    successor is revoked there may be another."""
    client = stores.keys.ensure_client("a", None, None, None)
    stores.keys.add(key(client.id, "k1", expires_at=50.0 if state == "expired" else None))
    if state == "revoked":
        stores.keys.revoke("k1", 5.0)
    if state == "replaced":
        stores.keys.add(key(client.id, "k2", created_at=10.0, replaces="k1"), 1000.0)
    before = stores.keys.snapshot()
    replaces = "nobody" if state == "gone" else "k1"
    with pytest.raises(NotFoundError if state == "gone" else ConflictError) as caught:
        stores.keys.add(key(client.id, "k3", created_at=100.0, replaces=replaces), 200.0)
    assert caught.value.code == ("key_not_found" if state == "gone" else "key_not_active")
    assert stores.keys.snapshot() == before
    if state == "replaced":
        stores.keys.revoke("k2", 101.0)
        stores.keys.add(key(client.id, "k3", created_at=102.0, replaces="k1"), 200.0)


def test_an_update_changes_key_and_client_together(stores: Stores) -> None:
    """Models of the key, rate and bounds of its client, slot and secret untouched; unknown keys are not found."""
    client = stores.keys.ensure_client("a", None, None, None)
    stores.keys.add(key(client.id))
    before = stores.keys.version()
    changed = stores.keys.update("k1", models=("oak",), rate=Rate(5, 60.0, 5), bounds=ClientBounds(concurrency=3))
    snapshot = stores.keys.snapshot()
    assert snapshot.keys == (changed,)
    assert changed.models == ("oak",)
    (owner,) = snapshot.clients
    assert (owner.slot, owner.rate_count, owner.rate_period_s, owner.burst, owner.concurrency) == (0, 5, 60.0, 5, 3)
    assert snapshot.version > before
    assert stores.keys.update("k1") == changed
    assert stores.keys.version() == snapshot.version
    with pytest.raises(NotFoundError):
        stores.keys.update("nope", models=("x",))


def test_many_keys_end_at_once(stores: Stores) -> None:
    """One change, one version; keys that had ended keep their time, unknown ids are passed over."""
    client = stores.keys.ensure_client("a", None, None, None)
    for number in range(3):
        stores.keys.add(key(client.id, f"k{number}"))
    stores.keys.revoke("k0", 1.0)
    before = stores.keys.version()
    ended = stores.keys.revoke_all(["k0", "k1", "k2", "k2", "nope"], 5.0)
    assert [(found.id, found.revoked_at) for found in ended] == [("k1", 5.0), ("k2", 5.0)]
    assert stores.keys.version() == before + 1
    assert [found.revoked_at for found in stores.keys.snapshot().keys] == [1.0, 5.0, 5.0]
    assert stores.keys.revoke_all(["k1"], 9.0) == ()
    assert stores.keys.version() == before + 1


def test_an_interrupted_rotation_leaves_the_old_key_alone(data: Path, sweep: Callable[..., int]) -> None:
    """A process that fails or dies at any statement: both the successor and the old key's end are there, or neither."""
    stores = open_stores(Settings(), data)
    client = stores.keys.ensure_client("a", None, None, None)
    stores.keys.add(key(client.id))
    stores.close()

    def rotate(stores: Stores) -> None:
        stores.keys.add(key(client.id, "k2", created_at=9.0, replaces="k1"), 60.0)

    assert sweep(rotate, lambda stores: stores.keys.snapshot()) >= 4


def test_an_interrupted_bulk_revocation_ends_none(data: Path, sweep: Callable[..., int]) -> None:
    """All of the keys are revoked, or none."""
    stores = open_stores(Settings(), data)
    client = stores.keys.ensure_client("a", None, None, None)
    for number in range(3):
        stores.keys.add(key(client.id, f"k{number}"))
    stores.close()
    ids = [f"k{number}" for number in range(3)]
    assert sweep(lambda stores: stores.keys.revoke_all(ids, 5.0), lambda stores: stores.keys.snapshot()) >= 4
