"""`journal.durability = store`: a turn's records are committed by the database before its answers leave.

There is no spool, and nothing waits anywhere once an answer has left. One transaction is on its way at a time; the
turns that come meanwhile share the next one (grouped insert), so an answer waits for two commits at most.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from modelyard.core.clock import Clock
from modelyard.core.errors import UnavailableError
from modelyard.core.events import Event
from modelyard.journal.durability.commit import Deliver, Refuse
from modelyard.journal.frame import MARK, Frame, read_frames
from modelyard.journal.interpret import RecordDecoder, fallbacks
from modelyard.journal.ports import RecordSink
from modelyard.journal.record import PredictionRecord
from modelyard.telemetry.logs import Emit, emit

RETRY_S = 1.0
"""After the database did not answer, turns are refused at once for so long; then one tries it again."""

Recorded = tuple[PredictionRecord, Frame]


@dataclass(frozen=True)
class _Turn:
    parts: Sequence[bytes]
    deliver: Deliver
    refuse: Refuse


class StoreJournal:
    """One worker's records on their way to the database. `append` and `commit` belong to the loop's thread; `sink` and
    `decoder` are used in the executor's, one call at a time.

    A turn whose transaction failed is refused. Where the outcome of a commit is unknown its records may be there all
    the same, as those of a worker that died before it answered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        sink: RecordSink,
        decoder: RecordDecoder,
        clock: Clock,
        *,
        max_batch: int,
        emit: Emit = emit,
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._sink = sink
        self._decoder = decoder
        self._clock = clock
        self._max_batch = max_batch
        self._emit = emit
        self._parts: Sequence[bytes] = ()
        self._waiting: list[_Turn] = []
        self._running = self._away = False
        self._again_s = 0.0

    def append(self, parts: Sequence[bytes]) -> None:
        """Takes the frames of one turn; UnavailableError("journal_unavailable") while the database is away."""
        if self._away and (self._running or self._clock.monotonic() < self._again_s):
            raise _refusal("the database is away")
        self._parts = parts

    def commit(self, deliver: Deliver, refuse: Refuse) -> None:
        """Calls `deliver` on the loop's thread once what was appended is committed, or `refuse`."""
        self._waiting.append(_Turn(self._parts, deliver, refuse))
        self._parts = ()
        if not self._running:
            self._start()

    def _start(self) -> None:
        turns, self._waiting = self._waiting, []
        self._running = True
        future = self._executor.submit(self._store, turns)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._stored, turns, done))

    def _stored(self, turns: Sequence[_Turn], done: Future[list[Exception | None]]) -> None:
        self._running = False
        error = done.exception()
        outcomes = [_refusal("the records could not be made")] * len(turns) if error is not None else done.result()
        self._judge(outcomes)
        for turn, refused in zip(turns, outcomes, strict=True):
            if refused is None:
                turn.deliver()
            else:
                turn.refuse(refused)
        if self._waiting:
            self._start()

    def _judge(self, outcomes: Sequence[Exception | None]) -> None:
        """What all of a transaction's turns heard says whether the database is there."""
        if all(outcomes):
            self._again_s = self._clock.monotonic() + RETRY_S
            if not self._away:
                self._emit(Event.JOURNAL_REFUSED, "error", reason=getattr(outcomes[0], "detail", {}).get("reason", ""))
        elif self._away:
            self._emit(Event.JOURNAL_HEALED)
        self._away = all(outcomes)

    # In the executor's thread

    def _store(self, turns: Sequence[_Turn]) -> list[Exception | None]:
        """What each turn hears: nothing if its records are committed."""
        outcomes: list[Exception | None] = []
        group: list[list[Recorded]] = []
        for turn in turns:
            if group and sum(map(len, group)) >= self._max_batch:
                outcomes += self._store_group(group)
                group = []
            group.append([(self._decoder.record(frame), frame) for frame in _frames(turn.parts)])
        return outcomes + self._store_group(group)

    def _store_group(self, group: Sequence[Sequence[Recorded]]) -> list[Exception | None]:
        """One transaction; if the database refuses it although it is there, one for each turn."""
        try:
            self._insert([record for turn in group for record, _ in turn])
        except UnavailableError as error:
            return [_refusal(error.message)] * len(group)
        except Exception:
            return [self._store_turn(turn) for turn in group]
        return [None] * len(group)

    def _store_turn(self, turn: Sequence[Recorded]) -> Exception | None:
        """Each of its records by itself, in a form that the database takes."""
        for record, frame in turn:
            refused: Exception | None = None
            for form in (record, *fallbacks(record, frame)):
                try:
                    self._insert([form])
                    refused = None
                    break
                except Exception as error:
                    refused = error
            if refused is not None:
                return _refusal(getattr(refused, "message", type(refused).__name__))
        return None

    def _insert(self, records: Sequence[PredictionRecord]) -> None:
        if not records:
            return
        stored = self._sink.store(records, None)
        if stored.quarantined:
            self._emit(Event.DRAIN_QUARANTINED, "error", records=stored.quarantined)


def _frames(parts: Sequence[bytes]) -> list[Frame]:
    return list(read_frames(io.BytesIO(b"".join([*parts, MARK])))) if parts else []


def _refusal(reason: str) -> UnavailableError:
    return UnavailableError(
        "journal_unavailable",
        "The database did not say that the prediction is recorded, so it is not answered.",
        retry_after_s=RETRY_S,
        reason=reason,
    )
