"""Records that leave by age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.lease import Fence
from modelyard.retention.ports import Cutoffs, Deleted, Due, Hold
from modelyard.storage import refusals
from modelyard.storage.dynamodb.attributes import Item
from modelyard.storage.dynamodb.metadata.leases import held, key_of
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.dynamodb.records.feeds import ASIDE, OUTCOMES, RECORDS, Feeds, Reading, Stretch
from modelyard.storage.dynamodb.records.layout import FILTERED, ID_TAKEN, WAITING, at_of
from modelyard.storage.dynamodb.records.leaving.certified import (
    MOST_AT_ONCE,
    ChangedMeanwhileError,
    Leaving,
    shown_counts,
)
from modelyard.storage.dynamodb.records.leaving.holds import held_by, keep, read_holds
from modelyard.storage.dynamodb.records.outcomes import DynamoOutcomeStore
from modelyard.storage.dynamodb.refusals import ConditionFailedError
from modelyard.storage.dynamodb.requests import Condition, Span
from modelyard.storage.dynamodb.tables import EXPIRES_AT
from modelyard.storage.prediction_row import microseconds, time_text

SWEPT = ("retention", "swept")
_TAKEN = Condition("#reason = :reason", {"reason": ID_TAKEN})
_NAMES = ("pk", "sk", "at", "parts", "reason", "payload_sha256", EXPIRES_AT, *FILTERED)


class DynamoRetentionStore:
    """retention.ports.RetentionStore over both tables."""

    def __init__(self, metadata: Metadata, trail: AuditTrail, feeds: Feeds) -> None:
        self._metadata = metadata
        self._trail = trail
        self._feeds = feeds
        self._leaving = Leaving(feeds, metadata)
        self._outcomes = DynamoOutcomeStore(feeds)

    def due(self, cutoffs: Cutoffs) -> Due:
        """What would leave now. Without holds the service counts; with them what is old is read."""
        holds = read_holds(self._metadata)
        old, aside = Stretch(RECORDS, 0, _us(cutoffs.predictions)), Stretch(ASIDE, 0, _us(cutoffs.quarantined))
        stored = max(0, sum(day.stored for day in self._feeds.days(RECORDS)))
        if not holds:
            return Due(self._feeds.count(old), 0, self._feeds.count(aside, _TAKEN), stored)
        kept = [held_by(holds, item) for item in self._read(old)]
        free = sum(not held_by(holds, item) for item in self._read(aside, _TAKEN))
        return Due(len(kept) - sum(kept), sum(kept), free, stored)

    def delete(
        self, cutoffs: Cutoffs, since: float, most: int, fence: Fence | None = None, records: bool = True
    ) -> Deleted:
        """Deletes one batch, with its certificate. At most MOST_AT_ONCE records go at once."""
        self._check(fence)
        from_then, most = since if records else None, min(most, MOST_AT_ONCE)
        try:
            return self._leaving.alone(lambda mark: self._delete(cutoffs, from_then, most, fence, mark))
        except ConditionFailedError:
            raise refusals.lease_lost(fence or Fence("", 0)) from None

    def swept(self) -> float | None:
        """When the last sweep ended."""
        found = self._metadata.get(*SWEPT)
        return None if found is None else float(found["swept_at"])

    def mark_swept(self, at: float) -> None:
        """A sweep ended."""
        item = {"pk": SWEPT[0], "sk": SWEPT[1], "swept_at": float(at)}
        self._metadata.requests.put(self._metadata.table, item)

    def _delete(self, cutoffs: Cutoffs, since: float | None, most: int, fence: Fence | None, mark: int) -> Deleted:
        holds = read_holds(self._metadata)
        until = 0 if since is None else _us(cutoffs.predictions)
        old = self._free(Stretch(RECORDS, _us(since or 0.0), until), holds)
        found = list(islice(old, most + 1))
        found_aside = list(islice(self._free(Stretch(ASIDE, 0, _us(cutoffs.quarantined)), holds, _TAKEN), most + 1))
        records, asides = map(self._leaving.still_there, (found[:most], found_aside[:most]))
        orphans = self._orphans(cutoffs, most)
        going = self._leaving.gather(records, asides, orphans)
        if going.keys:
            gone = records[: len(going.ids)]

            def certify(t: Transaction) -> None:
                if read_holds(self._metadata) != holds:
                    raise ChangedMeanwhileError
                if fence is not None:
                    t.check(key_of(fence.name), held(fence))
                said: dict[str, Any] = {
                    "before": time_text(_us(cutoffs.predictions)),
                    "quarantined_before": time_text(_us(cutoffs.quarantined)),
                    **shown_counts(going, len(asides)),
                    "first": time_text(at_of(gone[0]["at"])) if gone else None,
                    "last": time_text(at_of(gone[-1]["at"])) if gone else None,
                    "holds": len(holds),
                }
                self._trail.record(t, AuditAction.RETENTION_DELETE, "retention:age", None, said)

            self._leaving.remove(going, mark, certify)
        done = Deleted(len(going.ids), going.outcomes, len(asides), None, tuple(going.ids))
        if len(going.ids) < len(records):
            return msgspec.structs.replace(done, at=at_of(records[len(going.ids) - 1]["at"]) / 1e6)
        if len(found) > most:
            return msgspec.structs.replace(done, at=at_of(found[most - 1]["at"]) / 1e6)
        if len(found_aside) > most or len(orphans) == most or not going.complete:
            return msgspec.structs.replace(done, at=since or 0.0)
        self._forget_days(cutoffs)
        return done

    def _free(self, stretch: Stretch, holds: Sequence[Hold], where: Condition | None = None) -> Iterator[Item]:
        """What no hold keeps; what one keeps is kept from expiring too."""
        for item in self._read(stretch, where):
            if held_by(holds, item):
                keep(self._feeds, (item,))
            else:
                yield item

    def _read(self, stretch: Stretch, where: Condition | None = None) -> Reading:
        return self._feeds.read(stretch, where=where, only=_NAMES)

    def _orphans(self, cutoffs: Cutoffs, most: int) -> list[str]:
        """Predictions that never came, whose outcomes are old: they go by the day on which they were given. Those of a
        prediction that came go with it."""
        before = Condition("#recorded_at < :before", {"before": _us(cutoffs.predictions)})
        waiting = self._feeds.requests.query_all(self._feeds.table, Span(WAITING), where=before)
        ids = [item["sk"] for item in islice(waiting, most)]
        self._outcomes.join(ids)
        return self._leaving.never_came(ids)

    def _forget_days(self, cutoffs: Cutoffs) -> None:
        """Days from which all has gone are not asked for any more."""
        for feed, cutoff in ((RECORDS, cutoffs.predictions), (ASIDE, cutoffs.quarantined)):
            end = time_text(_us(cutoff))[:10]
            for day in self._feeds.days(feed):
                if day.date < end:
                    self._feeds.drop_if_empty(feed, day)
        # An outcome is of its prediction's day: none comes to a day that has no records any more.
        with_records = {day.date for day in self._feeds.days(RECORDS)}
        end = time_text(_us(cutoffs.predictions))[:10]
        for day in self._feeds.days(OUTCOMES):
            if day.date < end and day.date not in with_records:
                self._feeds.drop_if_empty(OUTCOMES, day)

    def _check(self, fence: Fence | None) -> None:
        if fence is None:
            return
        found = self._metadata.get(*key_of(fence.name))
        if found is None or found["token"] != fence.token or not found["holder"]:
            raise refusals.lease_lost(fence)


def _us(seconds: float) -> int:
    return max(0, microseconds(seconds, "at"))
