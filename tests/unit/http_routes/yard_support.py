"""The management application over the public fakes, with one key per scope."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgi import Reply, call

from modelyard.analytics.desk import AnalyticsDesk
from modelyard.auth.keys import KeyIssuer
from modelyard.auth.table import KeyTable, Principal
from modelyard.core.errors import ConflictError, PublishError
from modelyard.core.settings import RetentionSettings, Settings
from modelyard.http.management import management_app
from modelyard.http.services import Services
from modelyard.http.wire import presented_key
from modelyard.journal.outcomes import OutcomeDesk
from modelyard.journal.ports import SpoolPosition
from modelyard.models.ports import Version
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.sweep import Sweeper
from modelyard.routing.table import RoutingTable
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, memory_stores, prediction_record, servable, version


@dataclass(frozen=True)
class Published:
    """What the fake publisher did."""

    version: Version
    created: bool


class FakePublisher:
    """Publishes what is given as one file's content; `refuse` says no to the next one."""

    def __init__(self, stores: Stores, clock: FakeClock) -> None:
        self._stores = stores
        self._clock = clock
        self.refuse: PublishError | ConflictError | None = None
        self.seen: list[dict[str, bytes]] = []

    def publish(self, model: str, source: Path, version_name: str | None = None, *_: Any) -> Published:
        """Records the files it saw and adds a version."""
        files = {source.name: source} if source.is_file() else {p.name: p for p in source.iterdir()}
        self.seen.append({name: path.read_bytes() for name, path in files.items()})
        if self.refuse is not None:
            raise self.refuse
        name = version_name or str(len(self._stores.registry.versions()) + 1)
        made = version(model, name, next(iter(self.seen[-1].values())), self._clock.now())
        return Published(made, self._stores.registry.add_version(made))


@dataclass
class Yard:
    """The application and what stands behind it."""

    app: Any
    services: Services
    stores: Stores
    publisher: FakePublisher
    clock: FakeClock
    keys: dict[str, str]
    reason: str = ""
    loaded: tuple[tuple[str, str], ...] = ()

    def ask(self, method: str, target: str, body: Any = b"", scope: str = "admin", **headers: str) -> Reply:
        """One request with the key of a scope ("none": without a key)."""
        return call(self.app, method, target, body, self.keys.get(scope), **headers)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """One model `tree` with versions 1 and 2 and three predictions."""
    clock = FakeClock()
    stores = memory_stores()
    issuer = KeyIssuer(stores.keys, clock)
    publisher = FakePublisher(stores, clock)
    services = Services(
        settings=Settings(data=tmp_path), clock=clock, keys=issuer, key_store=stores.keys, usage=stores.usage,
        endpoints=stores.endpoints, registry=stores.registry, artifacts=stores.artifacts, runtimes={},
        publisher=publisher, log=stores.log, sink=stores.sink, audit=stores.audit,
        drain=lambda: 0, ping=stores.ping, close=stores.close, quarantine=stores.quarantine,
        outcomes=OutcomeDesk(stores.outcomes, lambda ids: {}, clock),
        analytics=None if stores.analytics is None else AnalyticsDesk(stores.analytics, stores.leases, clock),
        retention=RetentionDesk(
            Sweeper(stores.retention, stores.leases, RetentionSettings(), clock), stores.holds, stores.erasures, len,
            clock,
        ),
    )  # fmt: skip
    keys = {name: _key(issuer, name) for name in ("admin", "audit", "predict", "metrics")}
    keys["oak"] = issuer.create("oak", scopes=["admin", "predict"], models=["oak*"]).text.get_secret_value()
    made: Yard
    app = management_app(
        services, lambda request: _gate(stores, clock, request), lambda: made.reason, lambda: _table(made)
    )
    made = Yard(app, services, stores, publisher, clock, keys, loaded=(("tree", "1"), ("tree", "2")))
    for name in ("1", "2"):
        stores.registry.add_version(version("tree", name, name.encode(), clock.now()))
    records = [prediction_record(f"p{n}", clock.now() - 60 * n, status=200 if n else 400) for n in range(3)]
    stores.sink.store(records, SpoolPosition("f", 1))
    return made


def _key(issuer: KeyIssuer, name: str) -> str:
    return issuer.create(name, scopes=[name]).text.get_secret_value()


async def _gate(stores: Stores, clock: FakeClock, request: Any) -> Principal:
    table = KeyTable(stores.keys.snapshot())
    return table.authenticate(presented_key(request.headers.raw), clock.now())


def _table(yard: Yard) -> RoutingTable:
    servables = {(m, v): servable(model=m, version=v) for m, v in yard.loaded}
    known = [(version.model, version.version) for version in yard.stores.registry.versions()]
    return RoutingTable(1, yard.stores.endpoints.endpoints(), servables, known)
