"""How many predictions of one client may be in flight: each worker grants its share, refused at once, never queued."""

from __future__ import annotations

from modelyard.core.errors import LimitError

RETRY_AFTER_S = 1.0


class ClientPermits:
    """Permits per client, for one thread (the loop's) of one of `workers` processes.

    A client with a concurrency of c has ceil(c / workers) permits in each, so all together are at least c and less
    than c + workers: no process asks another one on the hot path, and none refuses all of a client's requests.
    """

    __slots__ = ("_taken", "_workers")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._taken: dict[int, int] = {}

    def take(self, slot: int, concurrency: int, client: str) -> None:
        """Takes a permit of the client, which `release` gives back; LimitError("concurrency_exceeded")."""
        taken = self._taken.get(slot, 0)
        share = -(-concurrency // self._workers)
        if taken >= share:
            raise LimitError(
                "concurrency_exceeded",
                f"The client `{client}` has {taken} predictions in flight here; nothing was done.",
                retry_after_s=RETRY_AFTER_S,
                field="concurrency",
                limit=concurrency,
                share=share,
                remaining=0,
                reset_s=RETRY_AFTER_S,
            )
        self._taken[slot] = taken + 1

    def release(self, slot: int) -> None:
        """Gives a permit back. ValueError if none is out: somebody released twice."""
        taken = self._taken.get(slot, 0)
        if taken <= 0:
            raise ValueError("a client's permit was released that nobody holds")
        if taken == 1:
            del self._taken[slot]
        else:
            self._taken[slot] = taken - 1

    def left(self, slot: int, concurrency: int) -> int:
        """How many more the client could have in flight on this worker now."""
        return max(0, -(-concurrency // self._workers) - self._taken.get(slot, 0))
