"""`journal.durability = store`: an answer leaves after its commit, turns share one, a refusal hurts no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from modelyard.codec.compression import decompress
from modelyard.codec.log import decode_for_log
from modelyard.core.errors import InternalError, UnavailableError
from modelyard.core.events import Event
from modelyard.journal.durability.store import RETRY_S, StoreJournal
from modelyard.journal.frame import encode_frame
from modelyard.journal.interpret import STORE_REFUSED, RecordDecoder
from modelyard.journal.ports import SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.testing import FakeClock, MemoryRecordSink, manifest, prediction_record


class Sink(MemoryRecordSink):
    """The memory sink, with a database that can be away or refuse single records as they are."""

    def __init__(self) -> None:
        super().__init__(lambda digest: manifest())
        self.away = False
        self.poison: set[str] = set()
        self.refused: set[str] = set()
        self.batches: list[list[str]] = []

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        assert position is None
        ids = [record.header.id for record in records]
        self.batches.append(ids)
        if self.away:
            raise UnavailableError("store_unavailable", "The database is not available.", retry_after_s=1.0)
        if any(record.header.id in self.poison and record.flag != STORE_REFUSED for record in records):
            raise InternalError("internal", "The database refused a statement.")
        if self.refused & set(ids):
            raise InternalError("internal", "The database refused a statement.")
        return super().store(records, position)


class Worker(Executor):
    """One worker: its thread runs a transaction when told, its loop calls back at once. `heard` is who was answered
    or refused, in order."""

    def __init__(self, max_batch: int = 100) -> None:
        self.sink = Sink()
        self.clock = FakeClock()
        self.queue: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.heard: list[str] = []
        self.errors: list[Exception] = []
        self.events: list[Event] = []
        decoder = RecordDecoder(self.sink.signature, decode_for_log, decompress, self.clock, 1024)
        self.journal = StoreJournal(
            self, self, self.sink, decoder, self.clock, max_batch=max_batch,  # type: ignore[arg-type]
            emit=lambda event, level="info", **fields: self.events.append(event),
        )  # fmt: skip

    def submit(self, call: Callable[..., Any], *arguments: Any, **_: Any) -> Future[Any]:  # type: ignore[override]
        """A transaction is on its way."""
        future: Future[Any] = Future()
        self.queue.append((future, lambda: call(*arguments)))
        return future

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        """The loop's."""
        call(*arguments)

    def turn(self, *ids: str) -> None:
        """A turn of the loop ends with these predictions."""
        name = "+".join(ids)
        frames = [part for one in ids for part in encode_frame(prediction_record(one).header, b"{}", b"{}")]
        self.journal.append(frames)
        self.journal.commit(lambda: self.heard.append(f"answer {name}"), lambda error: self.refuse(name, error))

    def refuse(self, name: str, error: Exception) -> None:
        self.heard.append(f"refuse {name}")
        self.errors.append(error)

    def step(self) -> None:
        """The oldest transaction runs to its end."""
        future, call = self.queue.pop(0)
        future.set_result(call())


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_no_answer_before_its_commit(worker: Worker) -> None:
    """Nothing leaves until the transaction ended; what came meanwhile shares the next one."""
    worker.turn("a")
    worker.turn("b", "c")
    worker.turn("d")
    assert worker.heard == []
    worker.step()
    assert (worker.heard, sorted(worker.sink.rows)) == (["answer a"], ["a"])
    worker.step()
    assert worker.heard == ["answer a", "answer b+c", "answer d"]
    assert worker.sink.batches == [["a"], ["b", "c", "d"]]
    assert worker.queue == []


def test_a_transaction_is_bounded() -> None:
    """Turns beyond `journal.drain_batch` records go into transactions of their own, in order."""
    worker = Worker(max_batch=2)
    worker.turn("a")
    worker.turn("b", "c", "d")
    worker.turn("e")
    worker.turn("f")
    worker.step()
    worker.step()
    assert worker.sink.batches == [["a"], ["b", "c", "d"], ["e", "f"]]
    assert worker.heard == ["answer a", "answer b+c+d", "answer e", "answer f"]


def test_a_database_that_is_away_refuses(worker: Worker) -> None:
    """Who waits hears `journal_unavailable`, who comes within a second too without asking the database; then one turn
    tries it, and only one until it has heard. The log says both, once."""
    worker.sink.away = True
    worker.turn("a")
    worker.step()
    assert worker.heard == ["refuse a"]
    assert isinstance(worker.errors[0], UnavailableError)
    assert (worker.errors[0].code, worker.errors[0].retry_after_s) == ("journal_unavailable", RETRY_S)
    with pytest.raises(UnavailableError, match="did not say"):
        worker.turn("b")
    worker.clock.advance(RETRY_S)
    worker.turn("c")
    with pytest.raises(UnavailableError):
        worker.turn("d")
    worker.step()
    worker.clock.advance(RETRY_S)
    worker.sink.away = False
    worker.turn("e")
    worker.step()
    worker.turn("f")
    worker.step()
    assert worker.heard == ["refuse a", "refuse c", "answer e", "answer f"]
    assert worker.sink.batches == [["a"], ["c"], ["e"], ["f"]]
    assert worker.events == [Event.JOURNAL_REFUSED, Event.JOURNAL_HEALED]


def test_a_refused_record_hurts_no_other(worker: Worker) -> None:
    """A record that the database refuses as it is is stored raw; one that it refuses in every form has its turn
    refused, and no other."""
    worker.turn("first")
    worker.sink.poison, worker.sink.refused = {"odd"}, {"never"}
    worker.turn("a", "odd")
    worker.turn("b")
    worker.turn("never")
    worker.step()
    worker.step()
    assert worker.heard == ["answer first", "answer a+odd", "answer b", "refuse never"]
    assert sorted(worker.sink.rows) == ["a", "b", "first", "odd"]
    assert worker.sink.records["odd"].flag == STORE_REFUSED
    assert worker.events == []


def test_a_turn_without_records_waits_for_those_before(worker: Worker) -> None:
    """Nothing to store is no transaction, but the order of answers stays."""
    worker.turn("a")
    worker.turn()
    worker.step()
    worker.step()
    assert (worker.heard, worker.sink.batches) == (["answer a", "answer "], [["a"]])
