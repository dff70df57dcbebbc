"""The promises of journal.ports.RecordSink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from together import in_one_transaction

from modelyard.core.settings import Settings
from modelyard.journal.ports import RecordFilter, SpoolPosition, StoredBatch
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record

ALL = RecordFilter()
END = SpoolPosition("f", 100)


def test_a_batch_and_its_position_are_stored(stores: Stores) -> None:
    """Every record is in the log and the position is behind the last of them."""
    records = [prediction_record(f"p{number}") for number in range(5)]
    assert stores.sink.position("f") == 0
    assert stores.sink.store(records, END) == StoredBatch(5, 0, 0)
    assert stores.sink.position("f") == 100
    assert stores.log.count(ALL) == 5


def test_records_may_come_from_no_spool(stores: Stores) -> None:
    """`journal.durability = store`: without a position the records are stored as ever, and no file has one."""
    assert stores.sink.store([prediction_record("p1")], None) == StoredBatch(1, 0, 0)
    assert stores.sink.store([prediction_record("p1"), prediction_record("p2")], None) == StoredBatch(1, 1, 0)
    assert (stores.log.count(ALL), stores.sink.position("f")) == (2, 0)


def test_a_position_is_per_file_and_forgotten(stores: Stores) -> None:
    """Files do not share positions; an empty batch moves one; forgetting makes a file unknown again."""
    stores.sink.store([], SpoolPosition("a", 10))
    stores.sink.store([], SpoolPosition("b", 20))
    stores.sink.store([], SpoolPosition("a", 30))
    assert (stores.sink.position("a"), stores.sink.position("b")) == (30, 20)
    stores.sink.forget("a")
    stores.sink.forget("never seen")
    assert (stores.sink.position("a"), stores.sink.position("b")) == (0, 20)


def test_the_same_record_again_is_known(stores: Stores) -> None:
    """Storing a batch twice, or overlapping batches, leaves every record once."""
    records = [prediction_record(f"p{number}") for number in range(1200)]
    assert stores.sink.store(records[:700], END) == StoredBatch(700, 0, 0)
    assert stores.sink.store(records, END) == StoredBatch(500, 700, 0)
    assert stores.sink.store(records, END) == StoredBatch(0, 1200, 0)
    assert stores.log.count(ALL) == 1200


def test_a_record_twice_in_one_batch_is_known(stores: Stores) -> None:
    """Duplicates inside a batch count like duplicates between batches."""
    record = prediction_record()
    assert stores.sink.store([record, record, prediction_record("p2")], END) == StoredBatch(2, 1, 0)


def test_the_same_id_with_another_payload_is_quarantined(stores: Stores) -> None:
    """The first record stays as it is, the second is counted as quarantined and hurts no neighbour."""
    first = prediction_record(inputs={"x": [[1.0]]})
    stores.sink.store([first], END)
    batch = [prediction_record("p0"), prediction_record(inputs={"x": [[9.0]]}), first, prediction_record("p2")]
    assert stores.sink.store(batch, END) == StoredBatch(2, 1, 1)
    assert stores.sink.store(batch, END) == StoredBatch(0, 3, 1)
    assert stores.log.get("p1")["inputs"] == {"x": [[1.0]]}
    assert stores.log.count(ALL) == 3


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"x": [1.5, -0.0, 1e300, 5e-324]}, {"x": [1.5, -0.0, 1e300, 5e-324]}),
        ({"x": [2**63 - 1, -(2**63), 2**53 + 1]}, {"x": [2**63 - 1, -(2**63), 2**53 + 1]}),
        ([{"größe": "[redacted]", "b": None}], [{"größe": "[redacted]", "b": None}]),
        ({"x": float("nan")}, {"x": None}),
        ("lone \ud800 surrogate", None),
        (2**70, None),
        ({"x": np.array([[1.0, 2.0]])}, {"x": [[1.0, 2.0]]}),
        (msgspec.Raw(b'{"x":[1,2.50]}'), {"x": [1, 2.5]}),
        (orjson.Fragment(b"[1e2]"), [100.0]),
        (None, None),
    ],
)
def test_any_json_value_is_stored(stores: Stores, value: Any, read: Any) -> None:
    """Inputs and outputs are JSON values of any kind; an odd one never stops the batch."""
    record = msgspec.structs.replace(prediction_record(), inputs=value, outputs=value)
    assert stores.sink.store([record], END).inserted == 1
    if read is not None or value is None:
        assert stores.log.get("p1")["inputs"] == read == stores.log.get("p1")["outputs"]


def test_a_record_that_could_not_be_decoded_is_kept_raw(stores: Stores) -> None:
    """Raw bytes and flag are stored; the log shows the flag."""
    record = msgspec.structs.replace(
        prediction_record(), inputs=None, outputs=None, raw=b"\x00\xff frame", flag="undecodable"
    )
    assert stores.sink.store([record], END).inserted == 1
    found = stores.log.get("p1")
    assert (found["inputs"], found["outputs"], found["flag"]) == (None, None, "undecodable")


def _drain(stores: Stores, number: int) -> int:
    inserted = 0
    for start in range(0, 400, 20):
        batch = [prediction_record(f"p{index}") for index in range(start, start + 20)]
        inserted += stores.sink.store(batch, SpoolPosition(f"f{number}", start + 20)).inserted
    return inserted


def test_two_processes_storing_the_same_records(processes: Callable[..., list[Any]], data: Path) -> None:
    """Two drains over the same records: each record is inserted by exactly one of them."""
    answers = processes(2, _drain)
    stores = open_stores(Settings(), data)
    # Two that write the same bytes to the same key at the same moment may both call it theirs: it is there once.
    assert sum(answers) == 400 or (sum(answers) > 400 and not in_one_transaction(stores))
    assert stores.log.count(ALL) == 400
    assert (stores.sink.position("f0"), stores.sink.position("f1")) == (400, 400)
    stores.close()


def test_an_interrupted_store_leaves_neither_records_nor_position(sweep: Callable[..., int]) -> None:
    """Records and position come together or not at all (promise P1); or the position last, and then once more is no
    more."""
    records = [prediction_record(f"p{number}") for number in range(50)]

    def view(stores: Stores) -> Any:
        count, position = stores.log.count(ALL), stores.sink.position("f")
        assert count == 50 or position == 0
        return (count if in_one_transaction(stores) else None), position

    assert sweep(lambda stores: stores.sink.store(records, END), view) >= 4


def test_an_interrupted_quarantine_leaves_the_old_state(data: Path, sweep: Callable[..., int]) -> None:
    """A batch with known and foreign records is stored whole or not at all too."""
    stores = open_stores(Settings(), data)
    stores.sink.store([prediction_record("p1", inputs={"x": 1})], SpoolPosition("f", 1))
    stores.close()
    batch = [prediction_record("p1", inputs={"x": 2}), prediction_record("p2")]

    def view(stores: Stores) -> Any:
        count, position = stores.log.count(ALL), stores.sink.position("f")
        assert count == 2 or position == 1
        return (count if in_one_transaction(stores) else None), position

    assert sweep(lambda stores: stores.sink.store(batch, END), view) >= 5
