"""The wire to DynamoDB is cut in a request or in its answer (F3): nothing is lost, nothing is doubled. The service is
an emulator; the wire is a proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamo.emulator import Dynamo
from modelyard.core.settings import RetentionSettings, Settings
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.storage.sql.open import open_stores
from modelyard.testing import key, prediction_record
from objectstore.wire import Fault, first, wired

FAULTS = {
    "in the request": Fault("reset", 300, up=True),
    "before the answer": Fault("reset", 0),
    "in the answer": Fault("cut", 120),
}


@pytest.mark.parametrize("where", FAULTS)
def test_a_cut_wire_loses_and_doubles_nothing(dynamo: Dynamo, tmp_path: Path, where: str) -> None:
    """F3 P1: a change and a batch of the drain, each with its first two connections cut: one key, one event, each
    record once, the position behind them."""
    with wired(dynamo.port) as wire:
        database = dynamo.settings(dynamo.tables()).model_copy(update={"endpoint_url": wire.url})
        stores = open_stores(Settings(database=database, retention=RetentionSettings(days=0)), tmp_path / "data")
        client = stores.ping.__self__.requests.client.get()  # type: ignore[attr-defined]  # the tables behind `ping`
        # Each request has a connection of its own: what is open already would not be cut.
        client.meta.events.register("before-call.dynamodb", lambda **_call: client.close())
        try:
            for target in (b"TransactWriteItems", b"BatchWriteItem", b"PutItem"):
                acme = stores.keys.ensure_client("acme", None, None, None)
                wire.plan = first(2, FAULTS[where], target)
                stores.keys.add(key(acme.id, target.decode()))  # a second time it would be refused
                batch = [prediction_record(f"{target.decode()}{number}") for number in range(30)]
                assert stores.sink.store(batch, SpoolPosition("f", 1)).quarantined == 0
                assert wire.plan(target) is None, "both faults were met"
            wire.plan = lambda request: None
            assert len(stores.keys.snapshot().keys) == 3
            assert stores.audit.verify().checked == 4
            assert stores.audit.verify().sound
            assert (stores.log.count(RecordFilter()), stores.sink.position("f")) == (90, 1)
        finally:
            stores.close()
