"""The drain: moves what the workers spooled into the database, each record once.

One process of a data folder does this (`drain.lock`). Records and the position behind them are stored in one
transaction, so whatever dies in between, the next drain goes on where the database says. A file is deleted when all
of it is stored and no worker holds it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from modelyard.codec.compression import decompress
from modelyard.codec.log import decode_for_log
from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError
from modelyard.core.events import Event
from modelyard.core.settings import MIB, JournalSettings
from modelyard.core.types import Signature
from modelyard.journal.frame import Frame, FrameReader, read_frames
from modelyard.journal.interpret import (
    REQUEST_REFUSED,
    DecodeForLog,
    Decompress,
    RecordDecoder,
    fallbacks,
)
from modelyard.journal.ports import RecordSink, SpoolPosition
from modelyard.journal.record import PredictionRecord, RecordHeader
from modelyard.journal.spool import STORE_AWAY, spool_bytes, spool_files
from modelyard.telemetry.logs import Emit, emit

LOCK_NAME = "drain.lock"
DAMAGED_SUFFIX = ".damaged"
MAX_BATCH_BYTES = 32 * MIB
"""Most bytes of one drain transaction, however few records they are."""
BACK_OFF_S, MAX_BACK_OFF_S = 0.2, 5.0
PATIENCE = 3
"""A batch that the store refused so many times is stored record by record: one of them may be the reason."""
FINAL_S = 6.0
SIGNATURES = 1024

_T = TypeVar("_T")


class DrainReport(msgspec.Struct, frozen=True):
    """What a pass did. `oldest_age_s` is the age of the oldest record that it found waiting; `undecoded` were kept
    raw; `bad_bytes` belong to no record; `failed` if the database did not take everything."""

    records: int = 0
    bytes: int = 0
    files_done: int = 0
    bad_bytes: int = 0
    oldest_age_s: float = 0.0
    undecoded: int = 0
    quarantined: int = 0
    failed: bool = False


@dataclass
class _Tally:
    records: int = 0
    bytes: int = 0
    files_done: int = 0
    bad_bytes: int = 0
    quarantined: int = 0
    oldest_ns: int = 0
    flags: Counter[str] = field(default_factory=Counter)


@dataclass
class _Batch:
    """Records of one file in order, each with the frame it came from."""

    file: str
    items: list[tuple[PredictionRecord, Frame]] = field(default_factory=list)
    bytes: int = 0


class _StoreFailed(Exception):  # noqa: N818 - never leaves this module
    """The database did not do what it was asked for."""


class Drain:
    """Moves one folder's spool into one sink. Not for several threads. `decode` None is codec.log's decoder.

    `breathe` is called after each record, for a drain that shares its core; `judge` after each batch, with the share of
    the spool that is full and the age in seconds of the batch's first record; `note` before a record with an
    Idempotency-Key is stored (what it cannot do holds the batch up, PATIENCE times)."""

    def __init__(
        self,
        folder: Path,
        sink: RecordSink,
        decode: DecodeForLog | None,
        settings: JournalSettings,
        clock: Clock,
        *,
        decompress: Decompress = decompress,
        max_body_bytes: int = 64 * MIB,
        breathe: Callable[[], object] = bool,
        judge: Callable[[float, float], object] | None = None,
        note: Callable[[RecordHeader, Frame], None] | None = None,
        emit: Emit = emit,
    ) -> None:
        self._folder = folder
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._breathe = breathe
        self._judge = judge
        self._note = note
        self._decoder = RecordDecoder(self._signature, decode or decode_for_log, decompress, clock, max_body_bytes)
        self._lock: BinaryIO | None = None
        self._signatures: dict[str, Signature] = {}
        self._positions: dict[str, int] = {}
        self._to_forget: set[str] = set()
        self._reported: set[str] = set()
        self._failures = 0
        self._halted: Callable[[], bool] = bool
        self.retry_s = 0.0
        """How long to wait before the next pass after a failed one; 0 after a good one."""

    def step(self) -> DrainReport:
        """One pass over all files, up to their present ends. Raises ConflictError("data_folder_in_use") if another
        drain works on the folder, and nothing else: a database that is away is reported, and tried again later."""
        self._acquire()
        tally = _Tally()
        failed = False
        try:
            for name in tuple(self._to_forget):
                self._ask(self._sink.forget, name)
                self._to_forget.discard(name)
            for path in spool_files(self._folder):
                if self._halted():
                    break
                self._read(path, tally)
        except _StoreFailed as error:
            failed = True
            self._note_failure(error)
        else:
            self._note_success(tally)
        return self._report(tally, failed)

    def run(self, stop: threading.Event, final_s: float = FINAL_S) -> None:
        """Passes every `journal.drain_interval_s` until `stop` is set, then until all is stored or `final_s` are
        over; what is left then stays in the spool for the next start."""
        self._emit(Event.DRAIN_STARTED, folder=str(self._folder))
        try:
            self._halted = stop.is_set
            while not stop.is_set():
                self.step()
                stop.wait(self.retry_s or self._settings.drain_interval_s)
            self._finish_within(final_s)
        finally:
            self._emit(Event.DRAIN_STOPPED, left_bytes=spool_bytes(self._folder))
            self.close()

    def close(self) -> None:
        """Lets another drain have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _finish_within(self, final_s: float) -> DrainReport:
        """Passes until nothing waits any more or the time is over; the last pass's report, with the records of all."""
        deadline_s = self._clock.monotonic() + final_s
        self._halted = lambda: self._clock.monotonic() >= deadline_s
        pause = threading.Event()
        stored = 0
        while True:
            report = self.step()
            stored += report.records
            if self._halted() or (not report.failed and report.records == 0):
                return msgspec.structs.replace(report, records=stored)
            pause.wait(min(self.retry_s, max(deadline_s - self._clock.monotonic(), 0.0)))

    def _read(self, path: Path, tally: _Tally) -> None:
        try:
            with path.open("rb") as file:
                # Before reading: a file that is free now has reached its end for ever.
                final = _try_lock(file)
                reader = read_frames(file, self._position(path.name))
                if self._store_all(path.name, reader, tally) and final:
                    self._finish(path, file, reader, tally)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say_once(path, Event.JOURNAL_FILE_DAMAGED, file=path.name, reason=str(error))

    def _store_all(self, name: str, reader: FrameReader, tally: _Tally) -> bool:
        """Stores the reader's frames in batches; False if it was halted in between."""
        batch = _Batch(name)
        for frame in reader:
            self._gather(batch, frame, tally)
            if len(batch.items) >= self._settings.drain_batch or batch.bytes >= MAX_BATCH_BYTES:
                self._store(batch, tally)
                batch = _Batch(name)
                if self._halted():
                    return False
        if batch.items:
            self._store(batch, tally)
        return True

    def _gather(self, batch: _Batch, frame: Frame, tally: _Tally) -> None:
        self._breathe()
        record = self._decoder.record(frame)
        note = self._note
        if note is not None and record.header.idempotency and self._failures < PATIENCE:
            self._ask(lambda: note(record.header, frame))
        at_ns = record.header.at_ns
        if tally.oldest_ns == 0 or at_ns < tally.oldest_ns:
            tally.oldest_ns = at_ns
        batch.items.append((record, frame))
        batch.bytes += record.request_bytes + record.answer_bytes

    def _store(self, batch: _Batch, tally: _Tally) -> None:
        end = batch.items[-1][1].end
        try:
            self._store_records(batch.file, [record for record, _ in batch.items], end, tally)
        except _StoreFailed:
            if self._failures < PATIENCE:
                raise
            self._ask(self._sink.position, batch.file)  # away all the time, or does it refuse a record?
            for item in batch.items:
                self._store_single(batch.file, *item, tally)
        tally.bytes += batch.bytes
        if self._judge is not None:
            age_s = self._clock.now() - batch.items[0][0].header.at_ns / 1e9
            self._judge(spool_bytes(self._folder) / self._settings.max_spool_bytes, age_s)

    def _store_single(self, file: str, record: PredictionRecord, frame: Frame, tally: _Tally) -> None:
        raw, bare = fallbacks(record, frame)
        for form in (record, record, raw):
            try:
                self._store_records(file, [form], frame.end, tally)
                return
            except _StoreFailed:
                # Does it refuse this record, or is it away? Only the first may cost the record its values.
                self._ask(self._sink.position, file)
        self._store_records(file, [bare], frame.end, tally)

    def _store_records(self, file: str, records: list[PredictionRecord], end: int, tally: _Tally) -> None:
        stored = self._ask(lambda: self._sink.store(records, SpoolPosition(file, end)))
        self._positions[file] = end
        tally.records += len(records)
        tally.flags.update(record.flag for record in records if record.flag)
        if stored.quarantined:
            tally.quarantined += stored.quarantined
            self._emit(Event.DRAIN_QUARANTINED, "error", file=file, records=stored.quarantined)

    def _finish(self, path: Path, file: BinaryIO, reader: FrameReader, tally: _Tally) -> None:
        """Deletes a file that is stored and has no owner; what belongs to no record is counted first."""
        if reader.bad_bytes and reader.damaged:
            kept = path.with_suffix(DAMAGED_SUFFIX)
            _copy_rest(file, reader.end, kept)
            self._emit(
                Event.JOURNAL_FILE_DAMAGED, "error", file=path.name, bad_bytes=reader.bad_bytes, kept_as=kept.name
            )
        elif reader.bad_bytes:
            self._emit(Event.JOURNAL_TAIL_DISCARDED, "warning", file=path.name, bad_bytes=reader.bad_bytes)
        path.unlink()
        tally.bad_bytes += reader.bad_bytes
        tally.files_done += 1
        self._positions.pop(path.name, None)
        # After the deletion: the other order would read the file from its start if this process died in between.
        self._to_forget.add(path.name)
        self._ask(lambda: self._sink.forget(path.name))
        self._to_forget.discard(path.name)

    def _position(self, name: str) -> int:
        known = self._positions.get(name)
        if known is None:
            known = self._positions[name] = self._ask(lambda: self._sink.position(name))
        return known

    def _signature(self, manifest: str) -> Signature | None:
        known = self._signatures.get(manifest)
        if known is None:
            known = self._ask(lambda: self._sink.signature(manifest))
            if known is not None:
                if len(self._signatures) >= SIGNATURES:
                    self._signatures.clear()
                self._signatures[manifest] = known
        return known

    def _ask(self, call: Callable[..., _T], *args: str) -> _T:
        """Calls the sink; whatever it raises means that it did not do it, or that nobody knows."""
        try:
            return call(*args)
        except Exception as error:
            raise _StoreFailed(f"{type(error).__name__}: {error}") from error

    def _note_failure(self, error: _StoreFailed) -> None:
        self._positions.clear()  # a commit whose outcome is unknown may have moved one
        self._failures += 1
        self.retry_s = min(BACK_OFF_S * 2 ** (self._failures - 1), MAX_BACK_OFF_S)
        self._emit(
            Event.DRAIN_STORE_FAILED, "warning", reason=str(error), failures=self._failures, retry_s=self.retry_s
        )
        if self._settings.on_failure == "refuse":
            (self._folder / STORE_AWAY).touch(mode=0o600)

    def _note_success(self, tally: _Tally) -> None:
        if self._failures:
            self._emit(Event.DRAIN_HEALED, after_failures=self._failures)
        self._failures, self.retry_s = 0, 0.0
        if self._settings.on_failure == "refuse":
            (self._folder / STORE_AWAY).unlink(missing_ok=True)
        flags = {flag: n for flag, n in tally.flags.items() if flag != REQUEST_REFUSED}
        if flags:
            self._emit(Event.DRAIN_RECORD_UNDECODED, "error", flags=flags)

    def _report(self, tally: _Tally, failed: bool) -> DrainReport:
        age_s = max(self._clock.now() - tally.oldest_ns / 1e9, 0.0) if tally.oldest_ns else 0.0
        undecoded = sum(n for flag, n in tally.flags.items() if flag != REQUEST_REFUSED)
        return DrainReport(
            tally.records, tally.bytes, tally.files_done, tally.bad_bytes, age_s, undecoded, tally.quarantined, failed
        )

    def _say_once(self, path: Path, event: Event, **fields: str) -> None:
        if path.name not in self._reported:
            self._reported.add(path.name)
            self._emit(event, "error", **fields)

    def _acquire(self) -> None:
        if self._lock is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = os.fdopen(descriptor, "r+b")
        if not _try_lock(lock):
            lock.close()
            raise ConflictError(
                "data_folder_in_use", "Another process moves this folder's records to the database.", field="data"
            )
        self._lock = lock


def drain_once(
    folder: Path,
    sink: RecordSink,
    settings: JournalSettings,
    clock: Clock,
    *,
    decode: DecodeForLog | None = None,
    note: Callable[[RecordHeader, Frame], None] | None = None,
    watch: Callable[[], object] | None = None,
    timeout_s: float = 60.0,
) -> DrainReport:
    """Moves what waits in a folder, for commands that run without a server: all of it, or as much as `timeout_s`
    allow; the last pass's report, with the records of all. `watch` is called after each batch. ConflictError if a
    server's drain is at work."""
    drain = Drain(folder, sink, decode, settings, clock, note=note, judge=watch and (lambda *_: watch()))
    try:
        return drain._finish_within(timeout_s)
    finally:
        drain.close()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _copy_rest(file: BinaryIO, offset: int, target: Path) -> None:
    file.seek(offset)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
        while chunk := file.read(MIB):
            kept.write(chunk)
        kept.flush()
        os.fsync(kept.fileno())
