"""What runs in the other processes of a test; a module of its own, so that they can import it by name (there is more
than one conftest)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.core.settings import Settings
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores

PROCESS_TIMEOUT_S = 60


def in_one_transaction(stores: Stores) -> bool:
    """Whether the database takes a change of any size at once. DynamoDB does not: a batch of records is stored in steps
    that can be done again, its position last."""
    return hasattr(stores.ping.__self__, "engine")  # type: ignore[attr-defined]


def at_once(
    barrier: Any,
    answers: Any,
    data: Path,
    environment: Mapping[str, str],
    work: Callable[[Stores, int], Any],
    number: int,
) -> None:
    """Does the work when all processes are ready for it, in the test's environment, not the fork server's."""
    os.environ.update(environment)
    stores = open_stores(Settings(), data)
    try:
        barrier.wait(PROCESS_TIMEOUT_S)
        answer = work(stores, number)
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    finally:
        stores.close()
    answers.put((number, answer))
