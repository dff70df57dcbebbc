"""What retention needs from the world. Times are UNIX seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from modelyard.core.lease import Fence


class Hold(msgspec.Struct, frozen=True):
    """A legal hold: what matches every field that is set is not deleted until the hold is released. `since` inclusive,
    `until` exclusive; a hold without any of them holds everything."""

    id: str
    reason: str
    at: float
    model: str | None = None
    endpoint: str | None = None
    client: str | None = None
    subject: str | None = None
    since: float | None = None
    until: float | None = None


class Cutoffs(msgspec.Struct, frozen=True):
    """What is older than this may leave: `predictions` with their outcomes, `quarantined` what was set aside."""

    predictions: float
    quarantined: float


class Due(msgspec.Struct, frozen=True):
    """What lies behind the cutoffs: records that would leave, records that a hold keeps, what was set aside; and how
    many records there are at all."""

    predictions: int
    held: int
    quarantined: int
    stored: int


class Deleted(msgspec.Struct, frozen=True):
    """What one batch took away. `at` is the time of the last record that was looked at, None when none is left;
    `ids` are the predictions that went."""

    predictions: int = 0
    outcomes: int = 0
    quarantined: int = 0
    at: float | None = None
    ids: tuple[str, ...] = ()


class RetentionStore(Protocol):
    """Records that grow old. Each batch and its certificate (an audit event) are one transaction."""

    def due(self, cutoffs: Cutoffs) -> Due:
        """What would leave now; changes nothing."""

    def delete(
        self, cutoffs: Cutoffs, since: float, most: int, fence: Fence | None = None, records: bool = True
    ) -> Deleted:
        """Deletes at most `most` records from `since` on, oldest first, with their outcomes, and as many of what was
        set aside; what a hold keeps stays. Without `records` only outcomes whose record never came, and what was set
        aside. A database that keeps days apart may take a whole day instead, without its `ids`.
        ConflictError("lease_lost") if the fence is not the latest."""

    def swept(self) -> float | None:
        """When the last sweep ended; None before the first."""

    def mark_swept(self, at: float) -> None:
        """A sweep ended."""


class HoldStore(Protocol):
    """Legal holds; each change with its audit event."""

    def add(self, hold: Hold) -> None:
        """From now on this is held."""

    def holds(self) -> Sequence[Hold]:
        """Those in force, oldest first."""

    def release(self, hold_id: str) -> Hold:
        """Ends one; NotFoundError("hold_not_found")."""


class Found(msgspec.Struct, frozen=True):
    """What is stored about a subject: records that can go, what a hold keeps (also of what was set aside), and what was
    set aside and can go."""

    predictions: int
    held: int
    quarantined: int


class ErasureStore(Protocol):
    """Deletion by subject. The subject itself is written down nowhere: certificates carry a salted digest."""

    def find(self, subject: str) -> Found:
        """What is there; changes nothing."""

    def register(self, subject: str, at: float) -> str:
        """From now on a record of this subject that is older than `at` is not stored any more, whenever it comes out
        of a spool, unless a hold keeps it. The erasure's id."""

    def erase(self, erasure_id: str, subject: str, most: int) -> Deleted:
        """Deletes at most `most` of the subject's records, with their outcomes, and what was set aside; what a hold
        keeps stays. A certificate goes with each batch that deleted something. None left: `at` is None."""

    def certify(self, erasure_id: str, gone: dict[str, Any]) -> None:
        """Writes the certificate of what was deleted elsewhere: from a file of the archive."""


class Partition(msgspec.Struct, frozen=True):
    """The records of one UTC day (`2026-01-31`) and endpoint."""

    day: str
    endpoint: str


class LeavingRecords(Protocol):
    """Records that go to the archive before they are deleted; what a hold keeps is not among them."""

    def next_partition(self, cutoffs: Cutoffs) -> Partition | None:
        """That of the oldest record that is due; None if none is."""

    def leaving(self, cutoffs: Cutoffs, partition: Partition, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """Its records that are due, oldest first, with their outcomes (journal.ports.RecordLog), in chunks."""

    def delete_archived(self, cutoffs: Cutoffs, ids: Sequence[str], file: str, fence: Fence | None = None) -> Deleted:
        """Deletes those of these records that are still due, with their outcomes; the certificate names the file that
        has them. ConflictError("lease_lost") if the fence is not the latest."""


class Archived(msgspec.Struct, frozen=True):
    """A file that was written (empty: all of it was there), and the records that are safe now, in order."""

    file: str
    ids: tuple[str, ...]


class ErasedFile(msgspec.Struct, frozen=True):
    """A file that was rewritten without so many records."""

    file: str
    predictions: int


class Archive(Protocol):
    """Records that left the database, in files by partition. UnavailableError("store_unavailable").

    Only who holds the lease of sweeps writes. A process that stood still may have lost it and not know, so none of its
    files may appear behind the back of a deletion by subject: `begin` takes away what is half written, and `write` asks
    `still_alone` between writing a file and showing it. A file whose writer asked in time is there when the next holder
    looks, or was taken away from it."""

    def begin(self) -> None:
        """The caller has the lease from here on: what others left half written is gone, and none of it can become a
        file any more."""

    def ids(self, partition: Partition) -> set[str]:
        """Which records of a partition are there."""

    def write(
        self,
        partition: Partition,
        chunks: Iterator[list[dict[str, Any]]],
        known: Collection[str],
        still_alone: Callable[[], None],
    ) -> Archived:
        """Writes one file of the first records that are not `known`, durable before this returns. The same records
        make the same file again. Where `still_alone` raises nothing is seen of it."""

    def erase(
        self, subject: str, keeps: Callable[[dict[str, Any]], bool], still_alone: Callable[[], None]
    ) -> Iterator[ErasedFile]:
        """Takes the records of a subject out of every file, but those that are kept; yields each file when that is
        done. Files that appear meanwhile are looked at too."""

    def count(self, subject: str) -> int:
        """How many records of a subject there are."""


_NAMES = ("model", "endpoint", "client", "subject")


def keeps(in_force: Iterable[Hold], header: Any) -> bool:
    """Whether one of the holds keeps a record that is not stored yet (`header`: journal.record.RecordHeader)."""
    at_us = header.at_ns // 1000
    return any(
        all(getattr(hold, name) in (None, getattr(header, name)) for name in _NAMES)
        and (hold.since is None or at_us >= hold.since * 1e6)
        and (hold.until is None or at_us < hold.until * 1e6)
        for hold in in_force
    )


def holds_about(in_force: Iterable[Hold], subject: str) -> list[Hold]:
    """Those that may keep something of this subject: what was set aside has no column to tell it by."""
    return [hold for hold in in_force if hold.subject in (None, subject)]


def holds(hold: Hold, record: dict[str, Any]) -> bool:
    """Whether a hold keeps a record of the archive, whose `time` is a moment."""
    at = record["time"].timestamp()
    named = all(getattr(hold, name) in (None, record[name]) for name in _NAMES)
    return named and (hold.since is None or at >= hold.since) and (hold.until is None or at < hold.until)
