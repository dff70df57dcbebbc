"""What retention needs from the world. Times are UNIX seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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

    def delete(self, cutoffs: Cutoffs, since: float, most: int, fence: Fence | None = None) -> Deleted:
        """Deletes at most `most` records from `since` on, oldest first, with their outcomes, and as many of what was
        set aside; what a hold keeps stays. ConflictError("lease_lost") if the fence is not the latest."""

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
    """What is stored about a subject: records that can go, records that a hold keeps, and of what was set aside."""

    predictions: int
    held: int
    quarantined: int


class ErasureStore(Protocol):
    """Deletion by subject. The subject itself is written down nowhere: certificates carry a salted digest."""

    def find(self, subject: str) -> Found:
        """What is there; changes nothing."""

    def register(self, subject: str, at: float) -> str:
        """From now on a record of this subject that is older than `at` is not stored any more, whenever it comes out
        of a spool. The erasure's id."""

    def erase(self, erasure_id: str, subject: str, most: int) -> Deleted:
        """Deletes at most `most` of the subject's records, with their outcomes, and what was set aside; a certificate
        goes with each batch that deleted something. None left: `at` is None."""
