"""What batching needs from the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelyard.core.errors import ModelyardError
from modelyard.core.types import DecodedRequest, Servable, Tensors


class Job(Protocol):
    """One request that waits for its run. The batcher settles each job exactly once."""

    servable: Servable
    request: DecodedRequest

    @property
    def over(self) -> bool:
        """Whether nobody waits for the run any more: the caller left, or a deadline answered it."""

    def succeed(self, outputs: Tensors, started_s: float, ended_s: float) -> None:
        """The run gave these outputs, this job's own rows only; monotonic seconds of the run."""

    def fail(self, error: ModelyardError) -> None:
        """The run failed for this job."""


class Settle(Protocol):
    """What happens to the jobs that one turn of the loop finished: journal, then answers."""

    def __call__(self, jobs: Sequence[Job]) -> None:
        """Never raises."""


class Together(Protocol):
    """Answers a whole batch that ran as one, in one go."""

    def __call__(self, jobs: Sequence[Job], outputs: Tensors, started_s: float, ended_s: float) -> bool:
        """Whether it did; if not, it changed nothing, and each job gets its own rows. `outputs` holds the rows of all
        jobs, in their order."""
