"""Daily quotas that hosts share: a turn gets its share with its rate, spends it one by one, and gives the rest back.

A quota counts predictions, and whether a request becomes one is known only after its rate was taken: it may name no
model, find no permit, or be a retry that was answered before. So a share is set aside for all that pass, and what was
not spent goes back at once. Until it is back another host may refuse what would fit; nobody ever gets more.

What all hosts used is written into this host's own counts too. So it is told by `GET /v1/me`, outlives every restart
in the database, and is the count to go on with when the shared one is away or was lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from modelyard.core.errors import ModelyardError
from modelyard.limits.ports import RateAsk, RateDecision
from modelyard.limits.quota import Quotas, exhausted, until_midnight_s, utc_day


@dataclass
class _Share:
    ask: RateAsk
    day: int
    used: int
    left: int


class QuotaShares(Quotas):
    """Quotas of one worker, between `begin` and `end` of a turn by its shares, else (and for whom the shared counter
    did not count) by the host's own counts. Belongs to the loop's thread."""

    __slots__ = ("_alone", "_shares")

    def __init__(self, own: Quotas) -> None:
        super().__init__(own.shared, own._clock)
        self._shares: dict[int, _Share] = {}
        self._alone: dict[int, tuple[int, int]] = {}
        """Per slot the day, and the predictions of it that the shared counter has not heard of."""

    def stated(self, ask: RateAsk) -> RateAsk:
        """The ask, with what this host knows of the client's quota. What was made alone is told once."""
        day = utc_day(self._now())
        alone_day, alone = self._alone.pop(ask.slot, (day, 0))
        kept = self.shared.used(ask.slot, day)
        correction = alone if alone_day == day else 0
        return msgspec.structs.replace(ask, quota_day=day, quota_kept=kept, quota_correction=correction)

    def begin(self, ask: RateAsk, verdict: RateDecision | ModelyardError) -> None:
        """What was set aside for this ask may be spent from here on."""
        quota = verdict.quota if isinstance(verdict, RateDecision) else None
        if quota is None:
            if ask.quota_correction:  # perhaps it was told all the same: then the client gets less, never more
                self._note_alone(ask.slot, ask.quota_day, ask.quota_correction)
            return
        share = self._shares.setdefault(ask.slot, _Share(ask, quota.day, 0, 0))
        share.left += quota.reserved
        share.used = quota.used

    def charge(self, slot: int, most: int, client: str) -> int:
        """See Quotas."""
        share = self._shares.get(slot)
        if share is None:
            left = super().charge(slot, most, client)
            self._note_alone(slot, utc_day(self._now()), 1)
            return left
        if share.left == 0:
            raise exhausted(client, most, until_midnight_s(self._now()))
        share.left -= 1
        return max(0, most - share.used)

    def end(self) -> list[RateAsk]:
        """The turn is over: asks that give back what it did not spend."""
        shares, self._shares = self._shares, {}
        back: list[RateAsk] = []
        for slot, share in shares.items():
            self.shared.raise_to(slot, share.day, share.used - share.left)
            if share.left:
                back.append(
                    msgspec.structs.replace(
                        share.ask, count=0, quota_day=share.day, quota_kept=0, quota_correction=-share.left
                    )
                )
        return back

    def _note_alone(self, slot: int, day: int, count: int) -> None:
        known_day, known = self._alone.get(slot, (day, 0))
        self._alone[slot] = (day, count + (known if known_day == day else 0))
