"""The demo's server: `modelyard serve` in a process of its own, on a free port and a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.app.folder import DataFolder
from modelyard.auth.keys import new_key
from modelyard.core.errors import CommandError

WORKERS = 2
START_WITHIN_S = 60.0
STOP_WITHIN_S = 32.0
"""The server itself ends within 30 s of SIGTERM."""
LOOK_EVERY_S = 0.05
LOG_TAIL_CHARS = 400


class DemoServer:
    """One server under `folder`. `admin_key` is made here and given to it; nothing of the caller's settings is."""

    def __init__(self, folder: Path, workers: int = WORKERS) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.admin_key = new_key().text
        self.url = ""
        self.let_gone = False
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The parent process: SIGTERM to it stops everything in order."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Starts it and waits until it accepts; CommandError("server_unreachable") with the end of its log."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.cli.main", "serve",
                 "--data", str(self.data), "--port", "0", "--workers", str(self._workers)],
                env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.url = str(wait_for(self._announced, START_WITHIN_S, "The server did not start")["url"])

    def stop(self) -> int | None:
        """SIGTERM, and its exit status; None if it did not end in time and was killed. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    @property
    def running(self) -> bool:
        """Whether it was started, and is ours to stop."""
        return self._process is not None and not self.let_gone

    def let_go(self) -> None:
        """The server, and its folder, stay when this process ends."""
        self.let_gone = True

    def _announced(self) -> Mapping[str, Any] | None:
        if self._process is not None and self._process.poll() is not None:
            text = self.log.read_text(errors="replace").strip()[-LOG_TAIL_CHARS:]
            raise CommandError("server_unreachable", f"The demo's server ended at once: {text}")
        return DataFolder(self.data).running()

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("MODELYARD_")}
        ours = {
            "MODELYARD_AUTH__ADMIN_KEY": self.admin_key,
            "MODELYARD_HTTP__DRAIN_DELAY_S": "0.2",  # no load balancer has to notice its stop
        }
        return {**kept, **ours}


def wait_for(look: Callable[[], Any], within_s: float, otherwise: str) -> Any:
    """The first true answer of `look`; CommandError("server_unreachable") with the sentence after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise CommandError("server_unreachable", f"{otherwise} within {within_s:g} s.")
        time.sleep(LOOK_EVERY_S)
    return found
