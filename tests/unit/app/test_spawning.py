"""What a forked child leaves when it ends by an exception of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

RAISING = """
import modelyard.app.spawning as spawning
from modelyard.core.settings import Settings
from modelyard.telemetry.logs import configure_logging

def broken(settings, arguments):
    raise RuntimeError("two\\nlines")

spawning.be_drain = broken
configure_logging("info")
spawner = spawning.Spawner(Settings(start_method="fork"), {}, spawning.Inherited(0, 0, 0))
child = spawner.drain(successor=False)
print(type(child).__name__, child.wait(20))
"""


def test_an_exception_of_a_forked_child_is_one_event() -> None:
    """One line of JSON with the process and the traceback, nothing else on stderr, and exit status 1."""
    ended = subprocess.run(
        [sys.executable, "-c", RAISING], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert ended.stdout == "Forked 1\n", ended.stderr
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["event"], line["level"], line["process"]) == ("worker.failed", "error", "modelyard.entry.drain")
    assert "RuntimeError: two\nlines" in line["exception"]
