"""A counter that fails is left alone: nobody waits for it, and it is tried again in the background every second."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from modelyard.core.errors import ModelyardError
from modelyard.core.events import Event
from modelyard.limits.ports import RateAsk, RemoteCounter
from modelyard.telemetry.logs import Emit, emit

RETRY_EVERY_S = 1.0
CONNECT_WITHIN_S = 1.0
"""How long the background may take to connect. A request does not wait for that: it has `limits.timeout_ms`."""
SAY_EVERY_S = 60.0
"""How often a failure that lasts is said again, with what was decided without the counter."""
PROBE = RateAsk("probe", 0, 1e-6, 1000)
"""Asked to see whether the counter counts; it always passes, so that something is written."""


class Breaker:
    """Whether the counter is asked (`closed`), and what was decided while it was not. Belongs to the loop's thread."""

    def __init__(
        self,
        counter: RemoteCounter,
        timeout_s: float,
        allow: bool,
        *,
        retry_every_s: float = RETRY_EVERY_S,
        say_every_s: float = SAY_EVERY_S,
        emit: Emit = emit,
    ) -> None:
        self.closed = True
        self.refused = 0
        self.allowed = 0
        """Requests decided without the counter since it failed."""
        self._counter = counter
        self._timeout_s = timeout_s
        self._allow = allow
        self._retry_every_s = retry_every_s
        self._say_every_s = say_every_s
        self._emit = emit
        self._probing: asyncio.Task[None] | None = None

    def trip(self, error: Exception) -> None:
        """The counter failed: from now on it is not asked, until it answers a probe."""
        if not self.closed:
            return
        self.closed = False
        self.refused = self.allowed = 0
        self._say_failed(error)
        self._probing = asyncio.get_running_loop().create_task(self._probe(error))

    async def close(self) -> None:
        """Ends the probes."""
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing

    async def try_once(self) -> None:
        """Returns if the counter counts: once, the connection included, and once as a request would see it. Raises
        what it raises, or TimeoutError."""
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await self._counter.take([PROBE])
        async with asyncio.timeout(self._timeout_s):
            await self._counter.take([PROBE])

    async def _probe(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time
        since_s = said_s = now()
        while True:
            try:
                await self.try_once()
                break
            except Exception as latest:
                error = latest
            if now() - said_s >= self._say_every_s:
                said_s = now()
                self._say_failed(error)
            await asyncio.sleep(self._retry_every_s)
        self.closed = True
        away_s = round(now() - since_s, 3)
        self._emit(Event.LIMIT_COUNTER_HEALED, "warning", away_s=away_s, refused=self.refused, allowed=self.allowed)

    def _say_failed(self, error: Exception) -> None:
        choice = "allow" if self._allow else "refuse"
        said = {"on_failure": choice, "refused": self.refused, "allowed": self.allowed}
        self._emit(Event.LIMIT_COUNTER_FAILED, "error", reason=reason_of(error), **said)


def reason_of(error: Exception) -> str:
    """The stable word of a failure, in our words; never what a library says of it, which may name hosts and users."""
    if isinstance(error, TimeoutError):
        return "too_slow"
    known = error.detail.get("reason") if isinstance(error, ModelyardError) else None
    return str(known) if known else type(error).__name__
