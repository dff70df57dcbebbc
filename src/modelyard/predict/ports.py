"""What the spine needs from the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Journal(Protocol):
    """Where a turn's records go before its answers leave."""

    def append(self, parts: Sequence[bytes]) -> None:
        """One write; UnavailableError("journal_unavailable"), then nothing of it is kept."""


class Commit(Protocol):
    """When an appended turn may be answered: at once (`process`), after fdatasync (`host`), or once the database has
    committed it (`store`)."""

    def __call__(self, deliver: Callable[[], None], refuse: Callable[[Exception], None]) -> None:
        """Calls `deliver` on the loop's thread once the turn is as durable as promised, or `refuse` if it never will
        be."""


class NoteRefused(Protocol):
    """Counts what was refused with 401, 403 or 429 (audit.refused)."""

    def __call__(self, status: int, code: str, client: str, address: str) -> None:
        """`client` is "" where the key was not known."""
