"""What runs in the other processes of a test; a module of its own, so that they can import it by name (there is more
than one conftest)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores

PROCESS_TIMEOUT_S = 60


def at_once(
    barrier: Any, answers: Any, data: Path, url: str | None, work: Callable[[Stores, int], Any], number: int
) -> None:
    """Does the work when all processes are ready for it."""
    stores = open_stores(Settings(database=DatabaseSettings(url=url)), data)
    try:
        barrier.wait(PROCESS_TIMEOUT_S)
        answer = work(stores, number)
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    finally:
        stores.close()
    answers.put((number, answer))
