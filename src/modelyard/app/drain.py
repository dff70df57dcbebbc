"""The drain process, put together: it alone moves records from the spool to the database."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

from modelyard.analytics.rolling import Roller
from modelyard.app.folder import DataFolder
from modelyard.app.sweeping import archiver_of, start_rolling, start_sweeping
from modelyard.codec.log import decode_for_log
from modelyard.core.clock import SystemClock
from modelyard.core.errors import UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.processes.rank import Rank
from modelyard.journal.drain import BACK_OFF_S, MAX_BACK_OFF_S, Drain
from modelyard.retention.sweep import Sweeper
from modelyard.storage.file.kept import KeptAnswers
from modelyard.storage.file.secret import installation_secret
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.telemetry.logs import emit

FINAL_S = 4.0
"""The last pass's time: with the half second in which a lost parent is noticed, an orphan ends within five."""


def run_drain(settings: Settings, parent_pid: int) -> None:
    """Drains until SIGTERM, or until the parent is gone: its successor starts a drain of its own."""
    rank = Rank(settings.journal.drain_urgent_age_s)
    folder = DataFolder(settings.data)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch_parent, args=(parent_pid, stop), daemon=True).start()
    stores = _open_when_there(settings, folder, rank, stop)
    if stores is None:
        return
    kept = KeptAnswers(folder.kept, folder.spool, 0, SystemClock(), settings.journal.durability == "host")
    drain = Drain(
        folder.spool,
        stores.sink,
        partial(decode_for_log, key=installation_secret(folder.path), spliced=True),
        settings.journal,
        SystemClock(),
        max_body_bytes=settings.http.max_body_bytes,
        breathe=rank.between_records,
        judge=rank.judge,
        note=kept.note,
    )
    sweeping = start_sweeping(
        Sweeper(
            stores.retention, stores.leases, settings.retention, SystemClock(),
            archiver=archiver_of(stores, settings.retention.batch),
        ), stop, settings.retention.interval_s,
    )  # fmt: skip
    beside = [sweeping]
    if stores.analytics is not None:
        roller = Roller(stores.analytics, stores.leases, SystemClock())
        beside.append(start_rolling(roller, stop, settings.analytics.interval_s))
    drain.run(stop, FINAL_S)
    for thread in beside:
        thread.join(FINAL_S)
    kept.close()
    stores.close()


def _open_when_there(settings: Settings, folder: DataFolder, rank: Rank, stop: threading.Event) -> Stores | None:
    """The stores, as soon as their database answers; None if `stop` came first."""
    failures = 0
    while not stop.is_set():
        try:
            return open_stores(settings, folder.path, breathe=rank.give_way)
        except UnavailableError as error:
            retry_s = min(BACK_OFF_S * 2**failures, MAX_BACK_OFF_S)
            failures += 1
            emit(Event.DRAIN_STORE_FAILED, "warning", reason=error.message, failures=failures, retry_s=retry_s)
            stop.wait(retry_s)
    return None


def _watch_parent(parent_pid: int, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        if os.getppid() != parent_pid:
            stop.set()
