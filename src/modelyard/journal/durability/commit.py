"""When a written turn may be answered: at once, or after one fdatasync for all turns that wait (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future

Deliver = Callable[[], None]
Refuse = Callable[[Exception], None]


def commit_at_once(deliver: Deliver, refuse: Refuse) -> None:
    """`journal.durability = process`: the write is enough, it survives the death of any process."""
    deliver()


class GroupCommit:
    """`journal.durability = host`: turns wait for an fdatasync that began after their write.

    One sync at a time; the turns written meanwhile share the next one, so nobody waits for more than two. If a sync
    fails, nothing is delivered any more and `broken` is called: the process must end (fsyncgate: a second fdatasync
    that succeeds proves nothing).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        sync: Callable[[], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._sync = sync
        self._broken = broken
        self._waiting: list[Deliver] = []
        self._running = False

    def __call__(self, deliver: Deliver, refuse: Refuse) -> None:
        """Calls `deliver` on the loop's thread after the next sync; `refuse` never: the process ends instead."""
        self._waiting.append(deliver)
        if not self._running:
            self._start()

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        self._running = True
        future = self._executor.submit(self._sync)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._synced, batch, done))

    def _synced(self, batch: list[Deliver], done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._broken(error)
            return
        self._running = False
        for deliver in batch:
            deliver()
        if self._waiting:
            self._start()
