"""One sweep: is it safe to delete now, and then in bounded batches.

A clock that is wrong must not delete early (P10, P13). Wall clocks jump; so a sweep is put off, loudly, where

* the wall clock and the monotonic clock disagree about the time since this process started (a jump while it runs);
* the last sweep is longer ago than `retention.max_gap_days` (a jump while nothing ran, or a server that was off);
* more than `retention.max_share` of all records would leave at once.

Somebody who looks and finds it right runs it by hand (`force`). A day of grace on top of the days covers a clock that
is wrong by less than that.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError
from modelyard.core.events import Event
from modelyard.core.lease import Fence, Leases
from modelyard.core.settings import RetentionSettings
from modelyard.retention.archiving import Archiver
from modelyard.retention.ports import Cutoffs, Deleted, Due, RetentionStore
from modelyard.telemetry.logs import Emit, emit

DAY_S = 86_400.0
GRACE_S = DAY_S
MAX_DRIFT_S = 3_600.0
"""More than any correction of a clock that is kept in time, and more than a suspended laptop's clocks part while its
processes sleep through a lunch; a jump that matters is days."""
LEASE, LEASE_S = "retention", 60.0
"""Much longer than a batch takes, much shorter than anybody waits for the next sweep."""
FEW = 100
"""Fewer records than this are no history that a share would say anything about."""
JUMPED, GAP, SHARE = "clock_jumped", "gap_too_long", "too_many_at_once"


class Plan(msgspec.Struct, frozen=True):
    """What a sweep would do now. `put_off` says why it will not do it by itself: JUMPED, GAP, SHARE, or None."""

    cutoffs: Cutoffs
    due: Due
    swept_at: float | None
    put_off: str | None


class Swept(msgspec.Struct, frozen=True):
    """What a sweep did. `archived`: those of the records that are in the archive. `more`: it ended before its work
    did."""

    predictions: int = 0
    outcomes: int = 0
    quarantined: int = 0
    archived: int = 0
    more: bool = False
    put_off: str | None = None


class Sweeper:
    """Sweeps of one process. `sweep` may run in any thread, one at a time."""

    def __init__(
        self, store: RetentionStore, leases: Leases, settings: RetentionSettings, clock: Clock, emit: Emit = emit,
        archiver: Archiver | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._archiver = archiver
        self._leases = leases
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._began = clock.now() - clock.monotonic()

    def plan(self) -> Plan:
        """What is due, and whether it may go."""
        now, swept = self._clock.now(), self._store.swept()
        days, aside = self._settings.days, self._settings.quarantine_days
        cutoff = _cutoff(now, days)
        if self._archiver is not None:  # whole days, or an archived day would be many small files
            cutoff -= cutoff % DAY_S
        cutoffs = Cutoffs(cutoff, _cutoff(now, days if aside is None else aside))
        due = self._store.due(cutoffs)
        return Plan(cutoffs, due, swept, self._put_off(now, swept, due))

    def sweep(
        self, *, force: bool = False, most_batches: int | None = None, going_on: Callable[[], bool] = lambda: True
    ) -> Swept:
        """Deletes what is due, batch by batch, as long as `going_on()`; nothing where it is put off, except by `force`.
        ConflictError("lease_held" | "lease_lost") if another process sweeps, UnavailableError if the database does not
        take it; what went before stays gone, with its certificates."""
        fence = self._leases.acquire(LEASE, self._holder, LEASE_S)
        if fence is None:
            raise ConflictError("lease_held", "Another process deletes what is due now.", field="lease", got=LEASE)
        try:
            return self._sweep(fence, force, most_batches, going_on)
        finally:
            self._leases.release(fence)

    def _sweep(self, fence: Fence, force: bool, most_batches: int | None, going_on: Callable[[], bool]) -> Swept:
        plan = self.plan()
        if plan.put_off is not None and not force:
            self._emit(
                Event.RETENTION_PUT_OFF, "warning", reason=plan.put_off, due=plan.due.predictions,
                stored=plan.due.stored,
            )  # fmt: skip
            return Swept(put_off=plan.put_off)
        done, batches = self._archive(plan, fence, most_batches, going_on)
        since, records = 0.0, self._archiver is None
        while not done.more and (plan.due.predictions or plan.due.quarantined):
            if batches == most_batches or not going_on():
                return msgspec.structs.replace(done, more=True)
            batch = self._store.delete(plan.cutoffs, since, self._settings.batch, fence, records)
            done, batches = _sum(done, batch), batches + 1
            if batch.at is None:
                break
            since = batch.at
            self._leases.renew(fence, LEASE_S)
        if done.more:
            return done
        now = self._clock.now()
        if self._drift_s(now) <= MAX_DRIFT_S and now > (plan.swept_at or 0.0):  # a wrong clock is nothing to go by
            self._store.mark_swept(now)
        if done.predictions or done.quarantined:
            self._emit(
                Event.RETENTION_SWEPT, predictions=done.predictions, outcomes=done.outcomes,
                quarantined=done.quarantined, archived=done.archived, held=plan.due.held,
            )  # fmt: skip
        return done

    def _archive(
        self, plan: Plan, fence: Fence, most_batches: int | None, going_on: Callable[[], bool]
    ) -> tuple[Swept, int]:
        """Moves what is due into the archive, where there is one; in how many batches."""
        if self._archiver is None or not plan.due.predictions:
            return Swept(), 0

        def still_alone() -> None:
            self._leases.renew(fence, LEASE_S)

        gone, batches, more = self._archiver.run(plan.cutoffs, fence, most_batches, still_alone, going_on)
        return Swept(gone.predictions, gone.outcomes, archived=gone.predictions, more=more), batches

    def _put_off(self, now: float, swept: float | None, due: Due) -> str | None:
        if not due.predictions and not due.quarantined:
            return None
        if self._drift_s(now) > MAX_DRIFT_S:
            return JUMPED
        if swept is not None and now - swept > self._settings.max_gap_days * DAY_S:
            return GAP
        if due.stored >= FEW and due.predictions > self._settings.max_share * due.stored:
            return SHARE
        return None

    def _drift_s(self, now: float) -> float:
        """How far wall clock and monotonic clock have parted since this process started."""
        return abs(now - self._clock.monotonic() - self._began)


def _cutoff(now: float, days: int) -> float:
    """Zero days keep everything."""
    return now - days * DAY_S - GRACE_S if days else 0.0


def _sum(done: Swept, batch: Deleted) -> Swept:
    return msgspec.structs.replace(
        done, predictions=done.predictions + batch.predictions, outcomes=done.outcomes + batch.outcomes,
        quarantined=done.quarantined + batch.quarantined,
    )  # fmt: skip
