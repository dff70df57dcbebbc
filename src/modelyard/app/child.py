"""What a child process of the server does, however it was started."""

from __future__ import annotations

import gc
import os
import signal

from modelyard.app.drain import run_drain
from modelyard.app.worker import Handles, run_worker
from modelyard.core.settings import Settings
from modelyard.telemetry.logs import configure_logging


def be_worker(settings: bytes, arguments: list[str]) -> None:
    """Runs one HTTP worker; `arguments` are the fields of Handles as text."""
    slot, listener, control, counter, quota, successor = map(int, arguments)
    chosen = child_settings(settings)
    # What was imported lives for ever: the collector need not look at it again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    run_worker(chosen, Handles(slot, listener, control, counter, quota, bool(successor)))


def be_drain(settings: bytes, arguments: list[str]) -> None:
    """Runs the drain; the argument is the parent's process id."""
    run_drain(child_settings(settings), int(arguments[0]))


def child_settings(text: bytes) -> Settings:
    """The parent's effective settings (they come by stdin or memory, not by arguments or environment, which others may
    see). From here on no SIGHUP ends this process: it is meant for the parent."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        del os.environ[name]
    settings = Settings.model_validate_json(text)
    configure_logging(settings.log.level)
    return settings
