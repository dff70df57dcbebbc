"""Refused requests, counted: an attack of a hundred thousand wrong keys is a handful of events, not as many."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import ModelyardError

MAX_CALLERS = 64
"""Callers that are told apart between two writes; the rest are counted together. With one write a minute and worker
this bounds both the memory and the growth of the log."""
OTHERS = "others"
FLUSH_INTERVAL_S = 60.0


class Refused(NamedTuple):
    """Whose requests were refused, and how. `client` is empty where the key was not known."""

    client: str
    address: str
    status: int
    code: str


class RefusalCounts:
    """Counts of refused requests since the last write. Safe for threads; `note` is a dictionary's increment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Refused, int] = {}

    def note(self, status: int, code: str, client: str, address: str) -> None:
        """One request was answered 401, 403 or 429. An IPv6 address counts as its /64, which one caller owns."""
        caller = Refused(client, _network(address), status, code)
        with self._lock:
            if caller not in self._counts and len(self._counts) >= MAX_CALLERS:
                caller = Refused("", OTHERS, status, code)
            self._counts[caller] = self._counts.get(caller, 0) + 1

    def flush(self, append: Callable[..., Any]) -> int:
        """Writes what was counted with `AuditLog.append`; how many events. What it refuses to take is kept for the
        next time."""
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return 0
        try:
            append(*(_change(caller, count) for caller, count in counts.items()))
        except ModelyardError:
            self._keep(counts)
            raise
        return len(counts)

    def _keep(self, counts: dict[Refused, int]) -> None:
        with self._lock:
            for caller, count in self._counts.items():
                counts[caller] = counts.get(caller, 0) + count
            self._counts = counts


def _change(caller: Refused, count: int) -> Change:
    subject = f"client:{caller.client}" if caller.client else f"address:{caller.address}"
    after = {"address": caller.address, "status": caller.status, "code": caller.code, "count": count}
    return Change(AuditAction.REQUEST_REFUSE, subject, None, after)


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
