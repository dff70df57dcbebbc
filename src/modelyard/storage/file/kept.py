"""Answers kept under their client's Idempotency-Key, in a SQLite file that all workers of the host share.

The row is taken before the prediction runs and completed when its record is written. A worker that dies in between
leaves a row that nobody will complete: whoever tends the index next looks into the spool, which is the truth, and
completes the row from the frame or lets the key go. The drain does the same before it stores a frame, so no frame
leaves the spool while its row is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError, UnavailableError
from modelyard.journal.frame import Frame, read_frames
from modelyard.journal.ports import KEEP_ANSWERS_S, KeptAnswer
from modelyard.journal.record import RecordHeader
from modelyard.journal.spool import spool_files

FILE = "index.db"
BUSY_S = 0.5
"""Longest wait for another process's write; they are tens of microseconds long."""
OPEN_S, OPEN_AGAIN_S = 5.0, 0.005
"""How long the first processes of a new folder wait for each other, and how often they try."""
CLIENT_GONE = 499
RETRY_AFTER_S = 1.0
MOST_DELETED = 500
"""Rows deleted by one statement: others wait for it."""
MOST_FORGOTTEN = 10
"""Answers forgotten by one statement: they may be large, and no more should go than must."""
MAX_BYTES = 256 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    client TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, epoch TEXT NOT NULL, prediction_id TEXT NOT NULL,
    at REAL NOT NULL, status INTEGER NOT NULL DEFAULT 0, version TEXT, header_length INTEGER, answer BLOB,
    PRIMARY KEY (client, key)
);
CREATE INDEX IF NOT EXISTS kept_at ON kept (at);
CREATE INDEX IF NOT EXISTS kept_running ON kept (epoch) WHERE status = 0;
"""
_BEGIN = """
INSERT INTO kept (client, key, digest, epoch, prediction_id, at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (client, key) DO UPDATE SET digest = excluded.digest, epoch = excluded.epoch,
    prediction_id = excluded.prediction_id, at = excluded.at, status = 0, version = NULL, header_length = NULL,
    answer = NULL
WHERE kept.at < ?
"""
_READ = "SELECT status, digest, prediction_id, version, header_length, answer FROM kept WHERE client = ? AND key = ?"
_OF = " WHERE client = ? AND key = ? AND prediction_id = ? AND status = 0"
_FINISH = f"UPDATE kept SET status = ?, version = ?, header_length = ?, answer = ?{_OF}"  # noqa: S608 - constants
_RELEASE = f"DELETE FROM kept{_OF}"  # noqa: S608 - constants
_EXPIRE = "DELETE FROM kept WHERE rowid IN (SELECT rowid FROM kept WHERE at < ? LIMIT ?)"
_FORGET = (
    "DELETE FROM kept WHERE rowid IN (SELECT rowid FROM kept INDEXED BY kept_at WHERE status != 0 ORDER BY at LIMIT ?)"
)
_DROP = "DELETE FROM kept WHERE status != 0 AND prediction_id IN (SELECT value FROM json_each(?))"
_USED = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)


def _opened(path: Path, durable: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _enter_wal(database, time.monotonic() + OPEN_S)
        database.execute("PRAGMA secure_delete = ON")
        database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        database.executescript(_SCHEMA)
        database.execute("PRAGMA quick_check(1)")
    except BaseException:
        database.close()
        raise
    return database


def _enter_wal(database: sqlite3.Connection, deadline_s: float) -> None:
    """Changing the mode needs the file alone and waits for nobody by itself: workers and drain open it at once."""
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(OPEN_AGAIN_S)


class KeptAnswers:
    """One process's connection. Not for several threads; each opens its own. `epoch` names the worker while it lives
    (`hold`); `durable` says that rows must survive the host, not only the processes; `tend` keeps what
    is used of the file below `max_bytes`."""

    def __init__(
        self,
        folder: Path,
        spool: Path,
        epoch: int,
        clock: Clock,
        durable: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._epoch = f"{epoch:016x}"
        self._clock = clock
        self._max_bytes = max_bytes
        self._held = -1
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._database = _opened(folder / FILE, durable)
        except sqlite3.OperationalError:  # busy, or no room: it may be sound
            raise
        except sqlite3.DatabaseError:
            # A power loss may leave a broken index (`process` does not sync it). The records are in the log; what is
            # lost is that retries of the last day are answered again, which is no reason not to start.
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    (folder / (FILE + suffix)).rename(folder / f"{FILE}{suffix}.broken")
            self._database = _opened(folder / FILE, durable)
        (folder / FILE).chmod(0o600)

    def hold(self) -> None:
        """From now on, until this process ends, rows of this epoch belong to somebody alive."""
        made = self._folder / f".{self._epoch}"
        self._held = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(self._live(self._epoch))

    def close(self) -> None:
        """Gives everything back; rows that are open then are nobody's."""
        self._database.close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def begin(self, client: str, key: str, digest: bytes, prediction_id: str) -> KeptAnswer | None:
        """As journal.ports.AnswerIndex says."""
        now = self._clock.now()
        with _available():
            for _ in range(2):  # a row may be released between the two statements
                row = (client, key, digest, self._epoch, prediction_id, now, now - KEEP_ANSWERS_S)
                if self._database.execute(_BEGIN, row).rowcount == 1:
                    return None
                if (found := self._database.execute(_READ, (client, key)).fetchone()) is not None:
                    break
        if found is None or found[0] == 0:
            raise ConflictError(
                "idempotency_in_use",
                "A request with this Idempotency-Key is still running.",
                retry_after_s=RETRY_AFTER_S,
                field="idempotency-key",
                expected="a key that is not in use, or the same request again later",
                got=key,
            )
        status, known_digest, known_id, version, header_length, answer = found
        if known_digest != digest:
            raise ConflictError(
                "idempotency_mismatch",
                "This Idempotency-Key was used for another request.",
                field="idempotency-key",
                expected="a new key for a new request",
                got=key,
            )
        return KeptAnswer(known_id, status, version, header_length, answer)

    def finish(self, client: str, key: str, answer: KeptAnswer) -> None:
        """As journal.ports.AnswerIndex says."""
        with _available():
            self._finish(client, key, answer)

    def _finish(self, client: str, key: str, answer: KeptAnswer) -> None:
        if not 200 <= answer.status < 500:
            self._database.execute(_RELEASE, (client, key, answer.prediction_id))
            return
        said = (answer.status, answer.version, answer.header_length, answer.body)
        self._database.execute(_FINISH, (*said, client, key, answer.prediction_id))

    def note(self, header: RecordHeader, frame: Frame) -> None:
        """Completes the row of a record that is about to leave the spool, if its worker could not. Only looks, where
        that is done already: the drain may be slow, and others wait for its writes. `store_unavailable`."""
        with _available():
            found = self._database.execute(_READ, (header.client, header.idempotency)).fetchone()
            if found is not None and found[0] == 0 and found[2] == header.id:
                self._finish(header.client, header.idempotency, _answer_of(header, frame))

    def tend(self) -> int:
        """Completes or releases what dead workers left open, and deletes what has expired. Where there is too much,
        the oldest answers go before their time: how many did. For the background."""
        with _available():
            epochs = [row[0] for row in self._database.execute("SELECT DISTINCT epoch FROM kept WHERE status = 0")]
            for epoch in epochs:
                if epoch != self._epoch and self._dead(epoch):
                    self._settle_dead(epoch)
            before = self._clock.now() - KEEP_ANSWERS_S
            while self._database.execute(_EXPIRE, (before, MOST_DELETED)).rowcount == MOST_DELETED:
                pass
            return self._forget()

    def forget(self, prediction_ids: Sequence[str]) -> int:
        """Drops the answers of these predictions; how many there were. Their keys are free. `store_unavailable`."""
        with _available():
            gone = 0
            for start in range(0, len(prediction_ids), MOST_DELETED):
                some = prediction_ids[start : start + MOST_DELETED]
                gone += self._database.execute(_DROP, (json.dumps(some),)).rowcount
            return gone

    def _forget(self) -> int:
        """What is open stays: whoever holds it will want to complete it."""
        forgotten = 0
        while self._database.execute(_USED).fetchone()[0] > self._max_bytes:
            gone = self._database.execute(_FORGET, (MOST_FORGOTTEN,)).rowcount
            if gone == 0:
                break
            forgotten += gone
        return forgotten

    def _settle_dead(self, epoch: str) -> None:
        asked = "SELECT prediction_id, client, key FROM kept WHERE status = 0 AND epoch = ?"
        left = {row[0]: row[1:] for row in self._database.execute(asked, (epoch,))}
        for path in spool_files(self._spool):
            if path.name.startswith(epoch):
                for header, frame in _records(path):
                    if left.pop(header.id, None) is not None:
                        self._finish(header.client, header.idempotency, _answer_of(header, frame))
        # No record in the spool: none was written, or the drain stored it, and completed the row before.
        for prediction_id, (client, key) in left.items():
            self._database.execute(_RELEASE, (client, key, prediction_id))
        self._live(epoch).unlink(missing_ok=True)

    def _dead(self, epoch: str) -> bool:
        try:
            descriptor = os.open(self._live(epoch), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _live(self, epoch: str) -> Path:
        return self._folder / f"{epoch}.live"


def _answer_of(header: RecordHeader, frame: Frame) -> KeptAnswer:
    # The record of a caller that left says 499. If the model ran all the same, the answer is there; else nothing is.
    status = header.status
    if status == CLIENT_GONE:
        status = 200 if frame.answer else 0
    length = None if header.answer_header_length < 0 else header.answer_header_length
    return KeptAnswer(header.id, status, header.version, length, frame.answer)


def _records(path: Path) -> Iterator[tuple[RecordHeader, Frame]]:
    with suppress(FileNotFoundError), path.open("rb") as file:  # stored meanwhile
        for frame in read_frames(file):
            with suppress(msgspec.DecodeError):
                yield frame.record_header(), frame


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UnavailableError(
            "store_unavailable",
            "The index of idempotency keys cannot be used now; nothing was done.",
            retry_after_s=RETRY_AFTER_S,
            reason=type(error).__name__,
        ) from None
