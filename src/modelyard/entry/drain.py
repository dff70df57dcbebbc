"""`python -m modelyard.entry.drain PARENT_PID`: started by the server, settings on stdin."""

from __future__ import annotations

import sys

from modelyard.app.drain import run_drain
from modelyard.entry.child import child_settings


def main(arguments: list[str]) -> None:
    """Runs the drain."""
    run_drain(child_settings(), int(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
