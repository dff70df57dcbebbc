"""Retention and rollups by themselves: the drain's process sees to them now and then, beside its own work."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from modelyard.analytics.rolling import Roller
from modelyard.audit.acting import acting
from modelyard.audit.event import Actor
from modelyard.core.errors import ModelyardError
from modelyard.core.events import Event
from modelyard.retention.archiving import Archiver
from modelyard.retention.sweep import Sweeper
from modelyard.storage.stores import Stores
from modelyard.telemetry.logs import Emit, emit

FIRST_S = 60.0
"""A start has better things to do; who starts and stops more often than this sweeps by hand."""


def archiver_of(stores: Stores, batch: int) -> Archiver | None:
    """What moves records into the archive, if there is one."""
    if stores.archive is None or stores.leaving is None:
        return None
    return Archiver(stores.leaving, stores.archive, batch)


def start_sweeping(sweeper: Sweeper, stop: threading.Event, interval_s: float) -> threading.Thread:
    """A thread that sweeps until `stop`; at its end a batch may still be on its way for as long as one takes."""
    return _often("retention", lambda: sweep_once(sweeper, stop), stop, min(FIRST_S, interval_s), interval_s)


def start_rolling(roller: Roller, stop: threading.Event, interval_s: float) -> threading.Thread:
    """A thread that rolls up until `stop`; as above."""
    return _often("rollups", lambda: roll_once(roller, stop), stop, interval_s, interval_s)


def _often(
    name: str, act: Callable[[], None], stop: threading.Event, first_s: float, interval_s: float
) -> threading.Thread:
    def loop() -> None:
        wait_s = first_s
        while not stop.wait(wait_s):
            act()
            wait_s = interval_s

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    return thread


def sweep_once(sweeper: Sweeper, stop: threading.Event, emit: Emit = emit) -> None:
    """One sweep, in the server's name; what the database refuses is said and tried again the next time."""
    with acting(Actor(f"server:{socket.gethostname()}")):
        try:
            sweeper.sweep(going_on=lambda: not stop.is_set())
        except ModelyardError as error:
            if error.code == "lease_held":
                return  # another process does it
            emit(Event.RETENTION_FAILED, "error", code=error.code, reason=error.message)


def roll_once(roller: Roller, stop: threading.Event, emit: Emit = emit) -> None:
    """Rolls up what waits; what the database refuses is said and tried again the next time."""
    try:
        roller.run(lambda: not stop.is_set())
    except ModelyardError as error:
        if error.code != "lease_lost":  # another process does it
            emit(Event.ANALYTICS_FAILED, "error", code=error.code, reason=error.message)
