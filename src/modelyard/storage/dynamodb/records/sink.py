"""Where the drain puts records: each once, and then the position behind them.

A batch is larger than a transaction, so it is stored in steps of which each may be done again: what must be there
before a record, the records, the days that they belong to, and last the position. A process that dies in between
leaves the position where it was; the next one finds by the payload's hash what is there already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from modelyard.core.types import Signature
from modelyard.journal.ports import SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import keeps
from modelyard.storage.dynamodb.attributes import Item, Key, key_of
from modelyard.storage.dynamodb.metadata.registry import read_manifests
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.records.feeds import ASIDE, RECORDS, Feeds, day_of
from modelyard.storage.dynamodb.records.layout import (
    GIVEN,
    RECORD,
    SPOOL,
    WAITING,
    Expiry,
    aside_items,
    given_of,
    id_of,
    keys_of_outcomes,
    keys_of_record,
    pk,
    record_items,
)
from modelyard.storage.dynamodb.records.leaving.erasures import Erasure, erasures_since
from modelyard.storage.dynamodb.records.leaving.holds import read_holds
from modelyard.storage.dynamodb.records.outcomes import DynamoOutcomeStore
from modelyard.storage.prediction_row import to_row

_MAX_SIGNATURES = 1024


class DynamoRecordSink:
    """journal.ports.RecordSink over the table of predictions."""

    def __init__(self, feeds: Feeds, metadata: Metadata, outcomes: DynamoOutcomeStore, expiry: Expiry) -> None:
        self._feeds = feeds
        self._requests = feeds.requests
        self._table = feeds.table
        self._metadata = metadata
        self._outcomes = outcomes
        self._expiry = expiry
        self._signatures: dict[str, Signature] = {}

    def store(self, records: Sequence[PredictionRecord], position: SpoolPosition | None) -> StoredBatch:
        """Stores a batch, and then the position behind it."""
        known_erasures = self._erasures(records)
        kept = self._without(records, known_erasures)
        new, foreign = self._divided(kept)
        stored = self._put(new)
        self._put_aside(foreign)
        # Also of those that were there: the process that stored them may have died before it got here.
        self._outcomes.join(record.header.id for record in kept)
        late = self._remove_erased(new, stored, known_erasures)
        self._note_days(*([record for record in some if record.header.id not in late] for some in (kept, new)))
        if position is not None:
            item = {"pk": f"{SPOOL}#{position.file}", "sk": SPOOL, "offset": position.offset}
            self._requests.put(self._table, item)
        erased = len(records) - len(kept) + len(late)
        known = len(kept) - len(new) - len(foreign)
        return StoredBatch(len(new) - len(late), known, len(foreign), erased)

    def position(self, file: str) -> int:
        """Offset to go on from; 0 for an unknown file."""
        found = self._requests.get(self._table, (f"{SPOOL}#{file}", SPOOL))
        return 0 if found is None else int(found["offset"])

    def forget(self, file: str) -> None:
        """Drops the position of a file."""
        self._requests.delete(self._table, (f"{SPOOL}#{file}", SPOOL))

    def signature(self, manifest: str) -> Signature | None:
        """The signature under this manifest digest; manifests are immutable, so an answer is remembered."""
        known = self._signatures.get(manifest)
        if known is None:
            found = read_manifests(self._metadata, (manifest,)).get(manifest)
            if found is None:
                return None
            if len(self._signatures) >= _MAX_SIGNATURES:
                self._signatures.clear()
            known = self._signatures[manifest] = found.signature
        return known

    def _divided(self, records: Sequence[PredictionRecord]) -> tuple[list[PredictionRecord], list[PredictionRecord]]:
        """Those that are not there yet, and those whose id another payload holds."""
        keys = [(pk(record.header.id), RECORD) for record in records]
        found = self._requests.get_many(self._table, keys, ("payload_sha256",))
        payloads = {key: str(item["payload_sha256"]) for key, item in found.items()}
        new: list[PredictionRecord] = []
        foreign: list[PredictionRecord] = []
        for key, record in zip(keys, records, strict=True):
            if key not in payloads:
                payloads[key] = record.payload_sha256
                new.append(record)
            elif payloads[key] != record.payload_sha256:
                foreign.append(record)
        return new, foreign

    def _put(self, records: Sequence[PredictionRecord]) -> list[Item]:
        if not records:
            return []
        holds = read_holds(self._metadata) if self._expiry.days else []
        first: list[Item] = []
        mains: list[Item] = []
        for record in records:
            row = to_row(record)
            before, main = record_items(record, row, self._expiry.record(row, holds))
            first += before
            mains.append(main)
        if first:
            self._requests.write_many(self._table, first)
        self._requests.write_many(self._table, mains)
        return mains

    def _put_aside(self, records: Sequence[PredictionRecord]) -> None:
        if not records:
            return
        holds = read_holds(self._metadata) if self._expiry.aside_days else []
        by_key = {(record.header.id, record.payload_sha256): record for record in records}
        items = [aside_items(record, self._expiry.aside(to_row(record), holds)) for record in by_key.values()]
        self._requests.write_many(self._table, [item for some in items for item in some[:-1]])
        self._requests.write_many(self._table, [some[-1] for some in items])

    def _note_days(self, records: Sequence[PredictionRecord], new: Sequence[PredictionRecord]) -> None:
        """Also of records that were there: the process that stored them may have died before it got here."""
        stored = Counter(day_of(record.header.at_ns // 1000) for record in new)
        days = dict.fromkeys(day_of(record.header.at_ns // 1000) for record in records)
        for date in days:
            self._feeds.note(RECORDS, date, stored[date])
        fresh = {record.header.id for record in new}
        other = [r for r in records if r.header.id not in fresh or r.flag not in ("", "request_refused")]
        for date in dict.fromkeys(day_of(record.header.at_ns // 1000) for record in other):
            self._feeds.note(ASIDE, date, 0)

    def _erasures(self, records: Sequence[PredictionRecord]) -> list[Erasure]:
        named = [record.header.at_ns // 1000 for record in records if record.header.subject]
        return erasures_since(self._metadata, min(named)) if named else []

    def _erased(self, records: Sequence[PredictionRecord], erasures: Sequence[Erasure]) -> list[PredictionRecord]:
        """Those that an erasure hits and no hold keeps."""
        hit = [record for record in records if any(erasure.hits(record.header) for erasure in erasures)]
        holds = read_holds(self._metadata) if hit else []
        return [record for record in hit if not keeps(holds, record.header)]

    def _without(self, records: Sequence[PredictionRecord], erasures: Sequence[Erasure]) -> list[PredictionRecord]:
        """The records without those whose subject was erased after they were made: they waited in a spool."""
        gone = self._erased(records, erasures)
        if not gone:
            return list(records)
        self._forget(gone)
        dropped = set(map(id, gone))
        return [record for record in records if id(record) not in dropped]

    def _forget(self, gone: Sequence[PredictionRecord]) -> None:
        """Takes away what waits for these records, and what a process that died stored of them before it came to the
        records themselves. One that is there was the erasure's to take, or a hold keeps it."""
        ids = list(dict.fromkeys(record.header.id for record in gone))
        found = self._requests.get_many(self._table, [(pk(one), RECORD) for one in ids], ("payload_sha256",))
        payloads = {id_of(key): str(item["payload_sha256"]) for (key, _), item in found.items()}
        never_came = [one for one in ids if one not in payloads]
        given = self._requests.get_many(self._table, [(pk(one), GIVEN) for one in never_came])
        keys: list[Key] = []
        for one in never_came:
            outcomes = given_of(given.get((pk(one), GIVEN)))
            keys += [(WAITING, one), (pk(one), GIVEN), *keys_of_outcomes(one, outcomes)]
        for record in gone:
            payload = payloads.get(record.header.id)
            if payload is None:
                keys += map(key_of, record_items(record, to_row(record), None)[0])
            if payload != record.payload_sha256:
                keys += map(key_of, aside_items(record, None))
        self._requests.write_many(self._table, deletes=dict.fromkeys(keys))

    def _remove_erased(
        self, new: Sequence[PredictionRecord], stored: Sequence[Item], known: Sequence[Erasure]
    ) -> set[str]:
        """An erasure that was registered while these were stored saw nothing of them: one of the two sees the
        other."""
        more = [erasure for erasure in self._erasures(new) if erasure not in known]
        gone = {record.header.id for record in self._erased(new, more)}
        hit = [(record.header.id, item) for record, item in zip(new, stored, strict=True) if record.header.id in gone]
        self._requests.write_many(self._table, deletes=[key for _, item in hit for key in keys_of_record(item)])
        return {one for one, _ in hit}
