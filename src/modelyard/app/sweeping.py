"""Retention by itself: the drain's process sweeps now and then, beside its own work."""

from __future__ import annotations

import socket
import threading

from modelyard.audit.acting import acting
from modelyard.audit.event import Actor
from modelyard.core.errors import ModelyardError
from modelyard.core.events import Event
from modelyard.retention.sweep import Sweeper
from modelyard.telemetry.logs import Emit, emit

FIRST_S = 60.0
"""A start has better things to do; who starts and stops more often than this sweeps by hand."""


def start_sweeping(sweeper: Sweeper, stop: threading.Event, interval_s: float) -> threading.Thread:
    """A thread that sweeps until `stop`; at its end a batch may still be on its way for as long as one takes."""
    thread = threading.Thread(target=_sweep_often, args=(sweeper, stop, interval_s), name="retention", daemon=True)
    thread.start()
    return thread


def _sweep_often(sweeper: Sweeper, stop: threading.Event, interval_s: float) -> None:
    wait_s = min(FIRST_S, interval_s)
    while not stop.wait(wait_s):
        sweep_once(sweeper, stop)
        wait_s = interval_s


def sweep_once(sweeper: Sweeper, stop: threading.Event, emit: Emit = emit) -> None:
    """One sweep, in the server's name; what the database refuses is said and tried again the next time."""
    with acting(Actor(f"server:{socket.gethostname()}")):
        try:
            sweeper.sweep(going_on=lambda: not stop.is_set())
        except ModelyardError as error:
            if error.code == "lease_held":
                return  # another process does it
            emit(Event.RETENTION_FAILED, "error", code=error.code, reason=error.message)
