"""The promises of auth.ports.UsageStore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.auth.ports import QuotaUse
from modelyard.core.settings import Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import key


def make_keys(stores: Stores, *key_ids: str) -> str:
    client = stores.keys.ensure_client("a", None, None, None)
    for key_id in key_ids:
        stores.keys.add(key(client.id, key_id))
    return client.id


def test_uses_are_noted_and_the_latest_call_wins(stores: Stores) -> None:
    """What was recorded is read back; a clock that was set back is believed again; unknown keys are passed over; the
    snapshot version does not move."""
    make_keys(stores, "k1", "k2", "k3")
    before = stores.keys.version()
    stores.usage.record_uses({})
    stores.usage.record_uses({"k1": 60.0, "k2": 4e9, "nobody": 60.0})
    stores.usage.record_uses({"k2": 120.0})
    assert stores.usage.last_uses() == {"k1": 60.0, "k2": 120.0}
    assert stores.keys.version() == before


def test_quotas_only_grow_within_a_day(stores: Stores) -> None:
    """Of one client and day the larger figure stays, in whatever order they come; a write that repeats or is late
    changes nothing."""
    client = make_keys(stores)
    stores.usage.keep_quotas([QuotaUse(client, 20_000, 5), QuotaUse("nobody", 20_000, 5)])
    stores.usage.keep_quotas([QuotaUse(client, 20_000, 9)])
    stores.usage.keep_quotas([QuotaUse(client, 20_000, 7)])
    assert stores.usage.quotas() == (QuotaUse(client, 20_000, 9),)


def test_four_days_are_kept(stores: Stores) -> None:
    """A day and its neighbours live side by side; the fifth takes the first one's place, even with fewer."""
    client = make_keys(stores)
    stores.usage.keep_quotas([QuotaUse(client, 20_000 + n, 100 + n) for n in range(4)])
    stores.usage.keep_quotas([QuotaUse(client, 20_004, 1)])
    assert {(use.day, use.used) for use in stores.usage.quotas()} == {
        (20_001, 101), (20_002, 102), (20_003, 103), (20_004, 1)
    }  # fmt: skip


def test_processes_that_write_at_once_lose_nothing(processes: Any, data: Path) -> None:
    """Three processes write the figures 1 to 60 of the same clients: the largest one stays."""
    stores = open_stores(Settings(), data)
    make_keys(stores)
    stores.close()
    assert processes(3, _write_quotas) == [None, None, None]
    stores = open_stores(Settings(), data)
    assert [use.used for use in stores.usage.quotas()] == [60]
    stores.close()


def _write_quotas(stores: Stores, number: int) -> None:
    (client,) = stores.keys.snapshot().clients
    for used in range(number + 1, 61, 3):
        stores.usage.keep_quotas([QuotaUse(client.id, 20_000, used)])
