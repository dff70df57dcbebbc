"""A client of a service: one for each process, and never in the clear."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

HTTPS = "an address that begins with https://"


class ProcessClient:
    """The client that `make` makes, at the first use in each process: importing the vendor's library costs 30 MB, which
    not every worker needs, and its connections must not be shared over a fork."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock, self._lock_pid = threading.Lock(), os.getpid()
        self._made: Any = None
        self._pid = 0

    def get(self) -> Any:
        """The client; it may be used by several threads."""
        with self._own_lock():
            if self._pid != os.getpid():
                self._made, self._pid = self._make(), os.getpid()
            return self._made

    def close(self) -> None:
        """Closes the connections; the next use makes new ones."""
        with self._own_lock():
            if self._made is not None and self._pid == os.getpid():
                self._made.close()
            self._made, self._pid = None, 0

    def _own_lock(self) -> threading.Lock:
        """This process's: a thread that is not here may have held the other. Two threads that come first may each make
        a lock, and so a client; the later one stays."""
        if self._lock_pid != os.getpid():
            self._lock, self._lock_pid = threading.Lock(), os.getpid()
        return self._lock


def is_private(endpoint: str) -> bool:
    """STORE-1: encrypted, or on this machine."""
    parts = urlsplit(endpoint)
    return parts.scheme == "https" or _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
