"""Retention as routes and commands ask for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError, InvalidRequestError
from modelyard.core.lease import Leases
from modelyard.retention.ports import Archive, ErasureStore, Found, Hold, HoldStore, holds
from modelyard.retention.sweep import LEASE, LEASE_S, Plan, Sweeper, Swept

MAX_REASON_CHARS = 512
ERASE_BATCH = 2000
Forget = Callable[[Sequence[str]], int]
"""Drops answers that are kept for retries of these predictions; how many there were."""


class Erased(msgspec.Struct, frozen=True):
    """What a deletion by subject did. `archived`: records that were taken out of the archive; `held`: records that a
    hold keeps; `more`: call again."""

    predictions: int
    outcomes: int
    quarantined: int
    kept_answers: int
    held: int
    archived: int = 0
    more: bool = False


class RetentionDesk:
    """All of retention over one set of stores."""

    def __init__(
        self, sweeper: Sweeper, holds: HoldStore, erasures: ErasureStore, forget: Forget, clock: Clock,
        archive: Archive | None = None, leases: Leases | None = None,
    ) -> None:  # fmt: skip
        self._archive = archive
        self._leases = leases
        self._sweeper = sweeper
        self._holds = holds
        self._erasures = erasures
        self._forget = forget
        self._clock = clock

    def plan(self) -> Plan:
        """What a sweep would do now."""
        return self._sweeper.plan()

    def sweep(self, *, force: bool, most_batches: int | None = None) -> Swept:
        """Deletes what is due; see Sweeper.sweep."""
        return self._sweeper.sweep(force=force, most_batches=most_batches)

    def hold(self, reason: str, **what: str | float | None) -> Hold:
        """Puts a hold on what matches all of `what` (Hold's fields); InvalidRequestError without a reason."""
        if not 0 < len(reason.strip()) <= MAX_REASON_CHARS:
            raise InvalidRequestError(
                "parameter_invalid",
                "A hold needs a reason.",
                field="reason",
                expected=f"1 to {MAX_REASON_CHARS} characters",
                got=f"{len(reason.strip())} characters",
                example="case 2026-17",
            )
        hold = Hold(secrets.token_hex(6), reason.strip(), self._clock.now(), **what)  # type: ignore[arg-type]
        self._holds.add(hold)
        return hold

    def holds(self) -> Sequence[Hold]:
        """Those in force."""
        return self._holds.holds()

    def release(self, hold_id: str) -> Hold:
        """Ends one; NotFoundError("hold_not_found")."""
        return self._holds.release(hold_id)

    def find(self, subject: str) -> Found:
        """What is stored about a subject."""
        return self._erasures.find(subject)

    def archived(self, subject: str) -> int:
        """How many records of a subject the archive has."""
        return 0 if self._archive is None else self._archive.count(subject)

    def erase(self, subject: str, most_batches: int | None = None) -> Erased:
        """Deletes what is stored about a subject now, and what still waits in a spool as soon as it comes out; what a
        hold keeps stays. Where there is an archive, no record may be on its way there meanwhile:
        ConflictError("lease_held") while a sweep runs."""
        with self._no_sweep() as still_alone:
            return self._erase(subject, most_batches, still_alone)

    def _erase(self, subject: str, most_batches: int | None, still_alone: Callable[[], None]) -> Erased:
        held = self._erasures.find(subject).held
        erasure_id = self._erasures.register(subject, self._clock.now())
        predictions = outcomes = quarantined = answers = batches = 0
        while most_batches is None or batches < most_batches:
            batch = self._erasures.erase(erasure_id, subject, ERASE_BATCH)
            predictions, outcomes = predictions + batch.predictions, outcomes + batch.outcomes
            quarantined, batches = quarantined + batch.quarantined, batches + 1
            answers += self._forget(batch.ids) if batch.ids else 0
            still_alone()
            if batch.at is None:
                archived = self._erase_archived(erasure_id, subject, still_alone)
                return Erased(predictions, outcomes, quarantined, answers, held, archived)
        return Erased(predictions, outcomes, quarantined, answers, held, more=True)

    def _erase_archived(self, erasure_id: str, subject: str, still_alone: Callable[[], None]) -> int:
        if self._archive is None:
            return 0
        self._archive.begin()
        in_force, archived = self._holds.holds(), 0

        def kept(record: dict[str, Any]) -> bool:
            return any(holds(hold, record) for hold in in_force)

        for file in self._archive.erase(subject, kept, still_alone):
            self._erasures.certify(erasure_id, {"predictions": file.predictions, "archived": file.file})
            archived += file.predictions
            still_alone()
        return archived

    @contextmanager
    def _no_sweep(self) -> Iterator[Callable[[], None]]:
        """The lease of sweeps, where there is an archive; a call keeps it."""
        if self._archive is None or self._leases is None:
            yield lambda: None
            return
        leases, fence = self._leases, self._leases.acquire(LEASE, f"erasure/{secrets.token_hex(8)}", LEASE_S)
        if fence is None:
            raise ConflictError(
                "lease_held",
                "Records leave for the archive now; try again when that is done.",
                field="lease",
                got=LEASE,
            )
        try:
            yield lambda: leases.renew(fence, LEASE_S)
        finally:
            leases.release(fence)
