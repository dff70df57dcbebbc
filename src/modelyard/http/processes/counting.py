"""A predictor whose settled turns are counted by version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.http.processes.tally import Tally
from modelyard.predict import Predictor


class CountingPredictor(Predictor):
    """The spine, and a tally of what it settled; `tally` is set once the worker has its slot."""

    tally: Tally | None = None

    def settle(self, jobs: Sequence[Any]) -> None:
        """As Predictor's; then the turn is counted. Never raises."""
        turn = [job for job in jobs if not job.settled]
        super().settle(turn)
        if turn and self.tally is not None:
            self.tally.note(turn)
