"""What every child process of a server does first."""

from __future__ import annotations

import os
import signal
import sys

from modelyard.core.settings import Settings
from modelyard.telemetry.logs import configure_logging


def child_settings() -> Settings:
    """The parent's effective settings, read from stdin (not from arguments or environment, which others may see).

    From here on no SIGHUP ends this process: it is meant for the parent.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        del os.environ[name]
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    configure_logging(settings.log.level)
    return settings
