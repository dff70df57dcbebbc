"""What clients and keys use, kept in the database by the background of the workers, and read back at a start.

Quotas are counted in shared memory, which outlives every worker but not the parent. One worker (whoever holds the
lock, which dies with its holder) writes what changed twice a second, and each writes once more when it stops: the
death of all processes at once loses what was counted since the last write, less than a second's worth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from modelyard.auth.ports import QuotaUse, UsageStore
from modelyard.auth.table import KeyTable
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.limits.quota import QuotaKeeper, SharedQuota, Used, utc_day
from modelyard.storage.sql.open import open_stores
from modelyard.telemetry.logs import emit

KEEP_EVERY_S = 0.5
NOTE_USES_EVERY_S = 20.0
"""Last uses are told to the minute; a key in constant use costs its worker three small writes a minute."""
USE_RESOLUTION_S = 60


class Watched(Protocol):
    """What the background looks at; `predict.Predictor`."""

    keys: KeyTable
    used: set[str]


def restored_quotas(settings: Settings, clock: Clock | None = None) -> int:
    """The descriptor of the shared quota counts, as far as the database kept them; for the parent, at a start."""
    descriptor = SharedQuota.create(settings.limits.max_clients)
    stores = open_stores(settings, settings.data)
    try:
        slots = {client.id: client.slot for client in stores.keys.snapshot().clients}
        uses = stores.usage.quotas()
    finally:
        stores.close()
    kept = (Used(slots[use.client_id], use.day, use.used) for use in uses if use.client_id in slots)
    shared = SharedQuota(descriptor)
    shared.restore(
        (use for use in kept if use.slot < settings.limits.max_clients), utc_day((clock or SystemClock()).now())
    )
    shared.close()
    return descriptor


class UsageKeeping:
    """Keeps one worker's part. All but `follow` may block, and is called off the loop, one call at a time."""

    def __init__(self, store: UsageStore, shared: SharedQuota, clock: Clock) -> None:
        self._store = store
        self._shared = shared
        self._keeper = QuotaKeeper(shared)
        self._clock = clock
        self._failed = False
        self._unwritten: dict[str, float] = {}

    async def follow(self, watched: Watched, executor: Executor) -> None:
        """Writes for ever; while the database is away it tries again."""
        loop = asyncio.get_running_loop()
        noted_s = time.monotonic()
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await loop.run_in_executor(executor, self.keep_quotas, watched)
            if time.monotonic() - noted_s >= NOTE_USES_EVERY_S:
                noted_s = time.monotonic()
                await loop.run_in_executor(executor, self.note_uses, taken_uses(watched))

    def keep_quotas(self, watched: Watched, last: bool = False) -> None:
        """Writes the counts that changed, if this process is the one that does, or if it stops (`last`)."""
        clients = watched.keys.quota_slots
        if not clients or not (self._shared.keeps() or last):
            return
        changed = self._keeper.changed(clients)
        if changed and self._tried(lambda: self._store.keep_quotas([QuotaUse(*use) for use in changed])):
            self._keeper.kept(changed)

    def note_uses(self, key_ids: set[str]) -> None:
        """Notes that these keys were used in this minute."""
        minute = self._clock.now() // USE_RESOLUTION_S * USE_RESOLUTION_S
        self._unwritten |= dict.fromkeys(key_ids, minute)
        uses = self._unwritten
        if uses and self._tried(lambda: self._store.record_uses(uses)):
            self._unwritten = {}

    def finish(self, watched: Watched) -> None:
        """The last writes of a worker that stops."""
        self.keep_quotas(watched, last=True)
        self.note_uses(taken_uses(watched))

    def _tried(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except Exception as error:
            if not self._failed:
                emit(Event.LIMIT_USAGE_NOT_KEPT, "warning", error=type(error).__name__, reason=str(error)[:300])
            self._failed = True
            return False
        self._failed = False
        return True


def taken_uses(watched: Watched) -> set[str]:
    """The keys that were used since the last call; on the loop's thread."""
    used, watched.used = watched.used, set()
    return used
