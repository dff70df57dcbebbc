"""The data folder: what lies where, who may read it, and that one server alone uses it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from modelyard.core.errors import ConflictError, SettingsError


class DataFolder:
    """Paths inside one data folder. `open` makes it private (0700)."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.database = self.path / "modelyard.db"
        self.artifacts = self.path / "artifacts"
        self.spool = self.path / "spool"
        self.kept = self.path / "kept"
        self.board = self.path / "board"
        self.tallies = self.path / "tallies"
        self.loads = self.path / "loads"
        self.unhealthy = self.path / "unhealthy"
        self.run = self.path / "run"
        self.address = self.path / "server.json"
        self._lock_path = self.path / "server.lock"
        self._lock_fd = -1

    def open(self) -> None:
        """Makes the folder and its parts. SettingsError("data_folder_unusable")."""
        try:
            for folder in (self.path, self.spool, self.artifacts):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise SettingsError(
                "data_folder_unusable",
                f"The data folder `{self.path}` cannot be used: {error.strerror}.",
                field="data",
                got=str(self.path),
            ) from None

    def lock(self) -> None:
        """Takes the folder for this server, until the process ends. ConflictError("data_folder_in_use")."""
        self._lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            self._lock_fd = -1
            other = self.running()
            raise ConflictError(
                "data_folder_in_use",
                f"Another server uses the data folder `{self.path}`"
                + (f" (process {other['pid']}, {other['url']})." if other else "."),
                field="data",
                got=str(self.path),
            ) from None

    def unlock(self) -> None:
        """Gives the folder back, if this object took it."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def locked(self) -> bool:
        """Whether a server runs on this folder now."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def announce(self, url: str, certificate: Path | None = None) -> None:
        """Writes where the server is, and the certificate that it made for itself, for the commands that are given
        this folder."""
        fresh = self.address.with_suffix(".new")
        fresh.write_text(json.dumps({"url": url, "pid": os.getpid(), "certificate": certificate and str(certificate)}))
        fresh.replace(self.address)

    def withdraw(self) -> None:
        """The server is gone."""
        self.address.unlink(missing_ok=True)

    def running(self) -> dict[str, Any] | None:
        """`{"url", "pid", "certificate"}` of the announced server, None if there is none."""
        try:
            announced: dict[str, Any] = json.loads(self.address.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return announced
