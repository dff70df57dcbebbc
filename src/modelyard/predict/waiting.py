"""The spine where limits are counted elsewhere: a turn waits for its counts, while the loop goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from modelyard.auth.table import Principal
from modelyard.core.call import Call, RateState
from modelyard.core.errors import ModelyardError
from modelyard.limits.clients import ClientLimits
from modelyard.limits.ports import RateAsk
from modelyard.limits.remote import RemoteRates, Verdict
from modelyard.limits.shares import QuotaShares
from modelyard.predict.allowance import Grant, judged, passed_one
from modelyard.predict.prediction import Prediction
from modelyard.predict.road import Road
from modelyard.predict.spine import Predictor


class WaitingPredictor(Predictor):
    """A Predictor whose turns ask `rates`. A request that waits is no prediction yet: it has no id and no permit, and
    holds the place of its connection. Its record counts the wait."""

    def __init__(self, *, rates: RemoteRates, **stations: Any) -> None:
        super().__init__(**stations)
        self._rates = rates
        self._quotas: QuotaShares | None = None
        if self.clients is not None:
            self._quotas = QuotaShares(self.clients.quotas)
            self.clients = ClientLimits(self._quotas, self.clients.permits)
        self._arrived_s = 0.0
        self._new = self._new_since

    async def take(self, principal: Principal) -> RateState:
        """See Predictor; UnavailableError("limits_unavailable")."""
        verdict = await self._rates.take(ask_for(principal, 1))
        if isinstance(verdict, ModelyardError):
            raise verdict
        return passed_one(principal, verdict)

    def _admit(self, arrived: Sequence[Call]) -> None:
        """Those whose keys are good wait for their counts."""
        at_ns, arrived_s = time.time_ns(), time.perf_counter()
        admitted, asked = self._recognise(arrived)
        if asked:
            asks = [self._ask_of(principal, count) for principal, count in asked.items()]
            self._rates.ask(asks, partial(self._counted, admitted, asked, asks, at_ns, arrived_s))

    def _ask_of(self, principal: Principal, count: int) -> RateAsk:
        ask = ask_for(principal, count)
        if principal.quota_per_day is None or self._quotas is None:
            return ask
        return self._quotas.stated(msgspec.structs.replace(ask, quota_per_day=principal.quota_per_day))

    def _counted(
        self,
        admitted: Sequence[tuple[Call, Road]],
        asked: Mapping[Principal, int],
        asks: Sequence[RateAsk],
        at_ns: int,
        arrived_s: float,
        verdicts: Sequence[Verdict],
    ) -> None:
        """The turn goes on, in a later one of the loop."""
        grants: dict[Principal, Grant] = {
            principal: judged(principal, count, verdict)
            for (principal, count), verdict in zip(asked.items(), verdicts, strict=True)
        }
        self._arrived_s = arrived_s
        self._batcher.hold()
        try:
            with self._shares(asks, verdicts):
                self._enter(admitted, grants, at_ns)
        finally:
            self._batcher.turn()

    @contextmanager
    def _shares(self, asks: Sequence[RateAsk], verdicts: Sequence[Verdict]) -> Iterator[None]:
        """What was set aside of daily quotas may be spent inside; the rest goes back."""
        quotas = self._quotas
        limited = [pair for pair in zip(asks, verdicts, strict=True) if pair[0].quota_per_day is not None]
        if quotas is None or not limited:
            yield
            return
        for ask, verdict in limited:
            quotas.begin(ask, verdict)
        try:
            yield
        finally:
            unspent = quotas.end()
            if unspent:
                self._rates.ask(unspent, _forget)

    def _new_since(self, *fields: Any) -> Prediction:
        prediction = Prediction(*fields)
        prediction.submitted_s = self._arrived_s
        return prediction


def _forget(_verdicts: Sequence[Verdict]) -> None:
    """What could not be given back stays taken."""


def ask_for(principal: Principal, count: int) -> RateAsk:
    """So many requests of the key's client."""
    return RateAsk(principal.client_id, principal.slot, principal.interval_s, principal.burst, count)
