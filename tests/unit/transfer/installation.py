"""An installation with something in every table, made through its stores, and how it goes on."""

from __future__ import annotations

from pathlib import Path

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.ports import QuotaUse
from modelyard.core.settings import Settings, load_settings
from modelyard.http.processes.health import UnhealthyVersions
from modelyard.journal.ports import Outcome, SpoolPosition
from modelyard.models.ports import Version
from modelyard.retention.ports import Hold
from modelyard.storage.sql.open import open_stores
from modelyard.testing import FakeClock, prediction_record, version_folder
from modelyard.testing.builders import T0
from modelyard.transfer.side import Side, sides

NOT_COPIED = {"spool_positions", "leases"}


def filled(data: Path, records: int = 120) -> Settings:
    """A data folder: two versions of a model, split traffic, keys and their usage, records of which one was set aside
    and one kept raw, outcomes of which one waits, a hold, an erasure, rollups."""
    settings = load_settings(data=data)
    stores = open_stores(settings, data, FakeClock())
    for name, content in (("1", b'{"k": 2.0}'), ("2", b'{"k": 3.0}')):
        source = data.parent / f"{data.name}-{name}"
        made = version_folder(source, {"stub.json": content, "deep/more.bin": bytes(500)})
        stores.artifacts.put(made.digest(), source)
        stores.registry.add_version(Version("tree", name, made.digest(), made, float(name)))
    stores.endpoints.set_traffic("tree", (("1", 30), ("2", 70)))
    issued = KeyIssuer(stores.keys, FakeClock()).create("acme", scopes=["predict"])
    stores.usage.record_uses({issued.key.id: 5.0})
    stores.usage.keep_quotas([QuotaUse(issued.key.client_id, 19_000, 7)])
    made_records = [
        prediction_record(f"p{number:05}", at=T0 + number, inputs={"x": [[0.1 * number]], "t": "ü\u2028😀"})
        for number in range(records)
    ]
    stores.sink.store(made_records, SpoolPosition("old", 17))
    odd = [
        prediction_record("p00001", inputs={"x": [[9.0]]}),
        prediction_record("raw", raw=b"\x00\xff", flag="undecoded", request_id="nul\0here"),
    ]
    stores.sink.store(odd, SpoolPosition("old", 18))
    stores.outcomes.put([Outcome("p00002", 0, 1, 3.0, "acme", issued.key.id)], 4.0)
    stores.outcomes.put([Outcome("p00002", 0, 0, 5.0, "acme", issued.key.id)], 6.0)
    stores.outcomes.put([Outcome("not-yet", 0, "x", 7.0, "acme", issued.key.id)], 8.0)
    stores.holds.add(Hold("h1", "a claim", 9.0, client="acme", since=1.5))
    stores.holds.add(Hold("h2", "another", 9.5))
    stores.erasures.register("somebody", 10.0)
    stores.retention.mark_swept(11.0)
    assert stores.analytics is not None
    assert stores.analytics.roll(T0 + 100).minutes, "some minutes are rolled up, some wait"
    stores.leases.acquire("retention", "me", 60.0)
    stores.close()
    UnhealthyVersions(data / "unhealthy").mark(7, "tree", "1", 5, 12.0)
    return settings


def go_on(settings: Settings) -> None:
    """What a server that goes on does: adds, changes and removes."""
    stores = open_stores(settings, settings.data, FakeClock())
    stores.endpoints.set_traffic("tree", (("2", 100), ("1", 0)))
    issuer = KeyIssuer(stores.keys, FakeClock())
    key = stores.keys.snapshot().keys[0]
    issuer.revoke(key.id)
    issuer.create("beta", scopes=["admin"])
    stores.usage.record_uses({key.id: 50.0})
    stores.sink.store([prediction_record("p00500"), prediction_record("not-yet")], SpoolPosition("old", 99))
    stores.outcomes.put([Outcome("p00002", 0, 1, 13.0, "acme", key.id)], 14.0)
    stores.holds.release("h1")
    stores.close()
    with stores_database(settings) as connection:
        connection.exec_driver_sql("DELETE FROM predictions WHERE id LIKE 'p0001%'")


def stores_database(settings: Settings):  # type: ignore[no-untyped-def]
    """A write transaction in the database of a data folder."""
    from modelyard.storage.sql.database import Database
    from modelyard.storage.sql.dialects import sqlite_url

    return Database(sqlite_url(settings.data / "modelyard.db"), 5.0).write()


def between(source: str | Path, target: str | Path) -> tuple[Side, Side]:
    """Both sides of a copy."""
    return sides(str(source), str(target), None, None)
