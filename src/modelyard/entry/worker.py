"""`python -m modelyard.entry.worker SLOT LISTENER CONTROL COUNTER QUOTAS SUCCESSOR`: started by the server, settings
on stdin."""

from __future__ import annotations

import gc
import sys

from modelyard.app.worker import Handles, run_worker
from modelyard.entry.child import child_settings


def main(arguments: list[str]) -> None:
    """Runs one worker."""
    slot, listener, control, counter, quotas, successor = map(int, arguments)
    settings = child_settings()
    # What was imported lives for ever: the collector need not look at it again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    run_worker(settings, Handles(slot, listener, control, counter, quotas, bool(successor)))


if __name__ == "__main__":
    main(sys.argv[1:])
