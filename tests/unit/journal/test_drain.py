"""The drain: every record once, whatever fails on the way (promises P1, P11)."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import ConflictError
from modelyard.core.events import Event
from modelyard.core.settings import JournalSettings
from modelyard.core.types import EncodedAnswer, RawRequest, Signature, Surface
from modelyard.journal.drain import Drain, drain_once
from modelyard.journal.frame import encode_frame, read_frames
from modelyard.journal.ports import SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.journal.spool import STORE_AWAY, SpoolWriter, spool_files
from modelyard.testing import FakeClock, MemoryRecordSink, manifest, prediction_record


class Events:
    """What was logged."""

    def __init__(self) -> None:
        self.seen: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, level: str = "info", **fields: Any) -> None:
        self.seen.append((event, fields))

    def names(self) -> list[Event]:
        return [event for event, _ in self.seen]


class Sink(MemoryRecordSink):
    """The memory sink, with a database that can be away, refuse single records, or lose the answer to a commit."""

    def __init__(self) -> None:
        super().__init__(lambda digest: manifest() if digest != "lost" else None)
        self.away = False
        self.poison = ""
        self.commit_lost = 0
        self.batches: list[int] = []

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        if self.away:
            raise ConnectionError("the database is away")
        if any(record.header.id == self.poison and record.inputs is not None for record in records):
            raise ValueError("this value is not for us")
        self.batches.append(len(records))
        stored = super().store(records, position)
        if self.commit_lost:
            self.commit_lost -= 1
            raise ConnectionError("no answer to COMMIT")
        return stored


def decode(
    surface: Surface, raw: RawRequest, answer: EncodedAnswer, signature: Signature, redaction: tuple[str, ...]
) -> tuple[Any, Any]:
    if raw.body.startswith(b"bad"):
        raise ValueError("not JSON")
    return {"in": raw.body.decode(), "left_out": list(redaction)}, {"out": answer.body.decode()}


class World:
    """A folder, its drain, and writers that spool into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.events = Events()
        self.sink = Sink()
        self.writers: dict[int, SpoolWriter] = {}
        self.settings = JournalSettings(drain_batch=3)
        self.drains: list[Drain] = []
        self.drain = self.new_drain()

    def new_drain(self) -> Drain:
        self.drains.append(Drain(self.folder, self.sink, decode, self.settings, self.clock, emit=self.events))
        return self.drains[-1]

    def end(self) -> None:
        for open_one in (*self.drains, *self.writers.values()):
            open_one.close()

    def write(self, *ids: str, epoch: int = 1, request: bytes = b"q", **header: Any) -> None:
        if epoch not in self.writers:
            self.writers[epoch] = SpoolWriter(self.folder, epoch, self.settings, self.clock, emit=self.events)
        self.writers[epoch].append(
            [p for one in ids for p in encode_frame(prediction_record(one, **header).header, request, b"a")]
        )

    def dies(self, epoch: int = 1) -> None:
        self.writers.pop(epoch).close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "spool")
    yield made
    made.end()


def test_live_files_are_read_to_their_present_end_and_kept(world: World) -> None:
    """What a living worker wrote is stored within one pass; its file stays until it lets go, then it is deleted and
    its position forgotten."""
    world.write("a", "b")
    assert world.drain.step().records == 2
    assert world.drain.step().records == 0
    world.write("c")
    assert world.drain.step().records == 1
    assert len(spool_files(world.folder)) == 1
    world.dies()
    report = world.drain.step()
    assert (report.records, report.files_done) == (0, 1)
    assert spool_files(world.folder) == []
    assert list(world.sink.rows) == ["a", "b", "c"]
    assert world.sink._positions == {}


def test_a_dead_workers_files_are_adopted(world: World) -> None:
    """Files of several epochs and sequences that nobody holds are stored and deleted in one pass."""
    world.settings = JournalSettings(max_file_bytes=4096)
    for epoch in (1, 2):
        for number in range(10):
            world.write(f"{epoch}-{number}", epoch=epoch, request=bytes(1000))
        world.dies(epoch)
    assert len(spool_files(world.folder)) > 4
    report = world.drain.step()
    assert report.records == 20
    assert spool_files(world.folder) == []
    assert len(world.sink.rows) == 20


def test_batches_are_bounded(world: World) -> None:
    """No transaction holds more than journal.drain_batch records."""
    world.write(*"abcdefgh")
    world.drain.step()
    assert world.sink.batches == [3, 3, 2]


def test_a_record_is_decoded_with_what_its_header_says(world: World) -> None:
    """Body, encoding and redaction policy reach the decoder; sizes and digest are those of the spooled bytes."""
    body = gzip.compress(b"hello")
    world.write("a", request=body, content_encoding=b"gzip", redaction="age,name")
    world.drain.step()
    record = world.sink.records["a"]
    assert record.inputs == {"in": "hello", "left_out": ["age", "name"]}
    assert (record.outputs, record.request_bytes, record.answer_bytes) == ({"out": "a"}, len(body), 1)
    assert len(record.payload_sha256) == 64
    assert (record.raw, record.flag) == (None, "")


@pytest.mark.parametrize(
    ("header", "request_", "flag"),
    [
        ({}, b"bad", "undecoded"),
        ({"manifest": "lost"}, b"q", "signature_unknown"),
        ({"surface": "unheard"}, b"q", "undecoded"),
        ({"content_encoding": b"gzip"}, b"not gzip", "undecoded"),
        ({"status": 400}, b"bad", "request_refused"),
    ],
)
def test_what_cannot_be_decoded_is_kept_raw_and_stops_nobody(
    world: World, header: dict[str, Any], request_: bytes, flag: str
) -> None:
    """The record arrives with its header, its bytes and a reason, and so do its neighbours; all but a caller's own
    mistake are counted and reported."""
    world.write("before")
    world.write("odd", request=request_, **header)
    world.write("after")
    report = world.drain.step()
    odd = world.sink.records["odd"]
    assert (odd.flag, odd.raw, odd.inputs) == (flag, request_ + b"a", None)
    assert world.sink.records["after"].flag == ""
    assert report.undecoded == (flag != "request_refused")
    assert (Event.DRAIN_RECORD_UNDECODED in world.events.names()) == (flag != "request_refused")


def test_a_caller_that_left_has_a_record_with_its_inputs(world: World) -> None:
    """Status 499 has no answer body; the inputs are logged all the same."""
    frame = encode_frame(prediction_record("gone", status=499, code="client_gone").header, b"q", b"")
    world.write("a")
    world.writers[1].append(list(frame))
    world.drain.step()
    record = world.sink.records["gone"]
    assert (record.flag, record.inputs["in"], record.answer_bytes) == ("", "q", 0)
    assert "client_gone" in record.outputs["out"]


def test_a_redaction_policy_forbids_raw_bytes(world: World) -> None:
    """Where columns must not be logged, an undecodable record keeps no bytes, and no digest that could be guessed
    from: the same header with another body has the same one."""
    policy = '{"age":"drop"}'
    world.write("odd", request=b"bad", redaction=policy)
    world.drain.step()
    odd = world.sink.records["odd"]
    assert (odd.flag, odd.raw) == ("undecoded", None)
    world.write("odd", request=b"bad too", redaction=policy)
    world.drain.step()
    assert world.sink.quarantined == []


def test_the_subject_comes_from_the_frame_or_else_from_the_body(world: World) -> None:
    """What the server knew goes first; the drain reads the body where the frame says nothing."""
    world.write("header", request=b'{"subject":"body"}', subject="header")
    world.write("body", request=b'{"subject":"body"}')
    world.write("packed", request=gzip.compress(b'{"subject":"body"}'), content_encoding=b"gzip")
    world.write("none", request=b"{}")
    world.drain.step()
    found = {name: record.header.subject for name, record in world.sink.records.items()}
    assert found == {"header": "header", "body": "body", "packed": "body", "none": ""}


def test_a_frame_of_another_version_arrives_once_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that this program cannot read: kept raw under an id made of the bytes."""
    monkeypatch.setattr("modelyard.journal.frame.SCHEMA", 3)
    world.write("a")
    monkeypatch.undo()
    world.drain.step()
    (record,) = world.sink.records.values()
    assert record.flag == "header_unknown"
    assert record.header.id.startswith("raw-")
    assert record.raw is not None
    assert record.raw.endswith(b"qa")


def test_a_database_that_is_away_is_tried_again_with_bounded_pauses(world: World) -> None:
    """P11: the pass reports failure and raises nothing; pauses grow to a bound; when the database is back, all
    records arrive, and both turns of fortune are told once each."""
    world.write("a", "b")
    world.sink.away = True
    pauses = []
    for _ in range(8):
        assert world.drain.step().failed
        pauses.append(world.drain.retry_s)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 5.0)
    world.sink.away = False
    assert world.drain.step().records == 2
    assert world.drain.retry_s == 0
    assert world.events.names().count(Event.DRAIN_HEALED) == 1


def test_refuse_mode_tells_the_workers(world: World) -> None:
    """journal.on_failure = refuse: a marker stands in the folder exactly while the database is away."""
    world.settings = JournalSettings(on_failure="refuse")
    world.drain = world.new_drain()
    world.write("a")
    world.sink.away = True
    world.drain.step()
    assert (world.folder / STORE_AWAY).exists()
    world.sink.away = False
    world.drain.step()
    assert not (world.folder / STORE_AWAY).exists()


def test_a_commit_without_an_answer_stores_nothing_twice(world: World) -> None:
    """F3: the database took the batch, the drain never heard: the next pass asks for the position and goes on."""
    world.write(*"abcdef")
    world.sink.commit_lost = 1
    assert world.drain.step().failed
    assert not world.drain.step().failed
    assert list(world.sink.rows) == list("abcdef")
    assert world.sink.quarantined == []
    assert sum(world.sink.batches) == 6


def test_one_record_that_the_database_refuses_stops_nobody(world: World) -> None:
    """After some refusals the batch goes record by record: the poisonous one arrives raw, flagged, the rest whole."""
    world.write(*"abcde")
    world.sink.poison = "c"
    while world.drain.step().failed:
        assert world.drain.retry_s < 5
    assert sorted(world.sink.rows) == list("abcde")
    assert (world.sink.records["c"].flag, world.sink.records["c"].raw) == ("store_refused", b"qa")
    assert all(world.sink.records[one].flag == "" for one in "abde")


@pytest.mark.parametrize("gone", [{2}, {2, 3}], ids=["for one call", "for two"])
def test_a_database_that_flickers_costs_no_record_its_values(
    world: World, monkeypatch: pytest.MonkeyPatch, gone: set[int]
) -> None:
    """P1: record by record, a refusal counts against the record only while the database answers: one that was away for
    a call or two has refused nothing, and the records arrive whole."""
    world.write(*"ab")
    world.sink.away = True
    while world.drain.retry_s < 0.8:
        assert world.drain.step().failed
    world.sink.away = False
    calls: list[str] = []

    def flickering(name: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            if len(calls) in gone:
                raise ConnectionError("the database is away")
            return honest(*args)

        return call

    for name in ("store", "position"):
        monkeypatch.setattr(world.sink, name, flickering(name, getattr(world.sink, name)))
    for _ in range(3):
        world.drain.step()
    assert calls[:2] == ["position", "store"]
    assert {one: record.flag for one, record in world.sink.records.items()} == {"a": "", "b": ""}


def test_the_same_id_with_another_payload_is_quarantined_loudly(world: World) -> None:
    """Never ignored: an error event, a count, the record set aside."""
    world.write("a", request=b"one")
    world.write("a", request=b"two", epoch=2)
    report = world.drain.step()
    assert report.quarantined == 1
    assert len(world.sink.quarantined) == 1
    assert Event.DRAIN_QUARANTINED in world.events.names()


@pytest.mark.parametrize("cut", [1, 17, 18, 40])
def test_a_dead_workers_torn_tail_is_discarded_and_counted(world: World, cut: int) -> None:
    """F7: an unfinished write at the end of a dead worker's file: the records before it arrive, the bytes are
    counted in the report and in an event, the file goes."""
    world.write("a", "b")
    (path,) = spool_files(world.folder)
    whole = path.stat().st_size
    world.write("c")
    world.dies()
    with path.open("r+b") as file:
        file.truncate(whole + cut)
    report = world.drain.step()
    assert (report.records, report.bad_bytes, report.files_done) == (2, cut, 1)
    assert (Event.JOURNAL_TAIL_DISCARDED, {"file": path.name, "bad_bytes": cut}) in world.events.seen
    assert spool_files(world.folder) == []


def test_a_living_workers_unfinished_write_is_waited_for(world: World) -> None:
    """A tail that is not complete yet is neither discarded nor reported while its owner lives."""
    world.write("a")
    (path,) = spool_files(world.folder)
    with path.open("ab") as file:
        file.write(b"half a fra")
    report = world.drain.step()
    assert (report.records, report.bad_bytes) == (1, 0)
    assert path.exists()


def test_damage_in_the_middle_is_set_aside_not_thrown_away(world: World) -> None:
    """Bytes that fail their checksum with more behind them may hold answered records: they are kept for people,
    said so in an error event, and the file stops nobody."""
    world.write("a")
    (path,) = spool_files(world.folder)
    good = path.stat().st_size
    world.write("b")
    world.write("c")
    world.dies()
    data = bytearray(path.read_bytes())
    data[good + 30] ^= 1
    path.write_bytes(data)
    world.write("d", epoch=2)
    report = world.drain.step()
    kept = path.with_suffix(".damaged")
    assert list(world.sink.rows) == ["a", "d"]
    assert report.bad_bytes == len(data) - good
    assert kept.read_bytes() == data[good:]
    assert (Event.JOURNAL_FILE_DAMAGED, {"file": path.name, "bad_bytes": len(data) - good, "kept_as": kept.name}) in (
        world.events.seen
    )


def test_only_one_drain_works_on_a_folder(world: World) -> None:
    """A second one is refused with a sentence until the first lets go."""
    world.drain.step()
    second = world.new_drain()
    with pytest.raises(ConflictError) as refused:
        second.step()
    assert refused.value.code == "data_folder_in_use"
    world.drain.close()
    second.step()
    second.close()


def test_the_age_of_the_oldest_waiting_record_is_told(world: World) -> None:
    """The lag: how old the oldest record was that a pass found; 0 when none waited."""
    world.write("a", at=world.clock.now())
    world.clock.advance(7)
    world.write("b", at=world.clock.now())
    assert world.drain.step().oldest_age_s == pytest.approx(7, abs=0.01)
    assert world.drain.step().oldest_age_s == 0


def test_a_new_drain_goes_on_where_the_database_says(world: World) -> None:
    """A drain that died between storing and deleting: its successor stores nothing again and deletes the file."""
    world.write("a", "b")
    world.drain.step()
    world.drain.close()
    world.write("c")
    world.dies()
    report = world.new_drain().step()
    assert (report.records, report.files_done) == (1, 1)
    assert list(world.sink.rows) == ["a", "b", "c"]


def test_a_truncation_between_write_and_mark_is_never_read(world: World) -> None:
    """A short write, read by the drain before its owner truncated it: no record of it, and none lost after it."""
    world.write("a")
    (path,) = spool_files(world.folder)
    size = path.stat().st_size
    half = b"".join(encode_frame(prediction_record("half").header, b"q", b"a"))
    with path.open("ab") as file:
        file.write(half)
    world.drain.step()
    with path.open("r+b") as file:
        file.truncate(size)
    world.write("b")
    world.drain.step()
    assert list(world.sink.rows) == ["a", "b"]


def test_drain_once_empties_a_folder_for_the_command_line(world: World) -> None:
    """Everything that waits is stored in one call, however many batches; an absent folder is no error."""
    world.write(*map(str, range(20)))
    world.dies()
    watched: list[int] = []
    report = drain_once(
        world.folder, world.sink, world.settings, world.clock, decode=decode,
        watch=lambda: watched.append(len(world.sink.rows)),
    )  # fmt: skip
    assert report.records == len(world.sink.rows) == watched[-1] == 20
    assert len(watched) > 1
    assert drain_once(world.folder / "none", world.sink, world.settings, world.clock, decode=decode).records == 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_run_stores_what_comes_and_ends_with_a_final_pass(world: World) -> None:
    """The loop stores within its interval; what was written up to the stop is stored before run returns."""
    stop = threading.Event()
    world.settings = JournalSettings(drain_interval_s=0.01)
    world.drain = world.new_drain()
    thread = threading.Thread(target=world.drain.run, args=(stop,))
    thread.start()
    world.write("a")
    until(lambda: "a" in world.sink.rows)
    world.write("b")
    world.dies()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert list(world.sink.rows) == ["a", "b"]
    assert spool_files(world.folder) == []
    assert world.events.names()[-1] == Event.DRAIN_STOPPED


def test_the_final_pass_ends_at_its_deadline_and_says_what_is_left(world: World) -> None:
    """A database that stays away keeps nobody from stopping; the records stay in the spool."""
    world.write("a")
    world.sink.away = True
    stop = threading.Event()
    stop.set()
    world.drain._clock = type("Real", (), {"now": world.clock.now, "monotonic": staticmethod(time.monotonic)})()
    started = time.monotonic()
    world.drain.run(stop, final_s=0.3)
    assert time.monotonic() - started < 5
    event, fields = world.events.seen[-1]
    assert event == Event.DRAIN_STOPPED
    assert fields["left_bytes"] == spool_files(world.folder)[0].stat().st_size
    with spool_files(world.folder)[0].open("rb") as file:
        assert [msgspec.msgpack.decode(frame.header)[0] for frame in read_frames(file)] == ["a"]
