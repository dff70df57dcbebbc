"""Deletion by subject. The subject's own text stays nowhere: certificates and the list of erasures have a salted
digest, and what points to the subject goes with the records."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InternalError
from modelyard.retention.ports import Deleted, Found, holds_about
from modelyard.storage.dynamodb.attributes import Item, Key, ordered
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction
from modelyard.storage.dynamodb.records.feeds import ASIDE, Feeds
from modelyard.storage.dynamodb.records.layout import FILTERED, RECORD, about, at_of, pk
from modelyard.storage.dynamodb.records.leaving.certified import (
    MOST_AT_ONCE,
    ChangedMeanwhileError,
    Leaving,
    shown_counts,
)
from modelyard.storage.dynamodb.records.leaving.erasures import ERASURES, erasures_since, subject_digest
from modelyard.storage.dynamodb.records.leaving.holds import held_by, read_holds
from modelyard.storage.dynamodb.requests import Span
from modelyard.storage.prediction_row import microseconds, time_text

_SALT_BYTES = 16
_CHUNK = 1000
_NAMES = ("at", "parts", *FILTERED)


class DynamoErasureStore:
    """retention.ports.ErasureStore over both tables."""

    def __init__(self, metadata: Metadata, trail: AuditTrail, feeds: Feeds) -> None:
        self._metadata = metadata
        self._trail = trail
        self._feeds = feeds
        self._leaving = Leaving(feeds, metadata)

    def find(self, subject: str) -> Found:
        """What is there."""
        holds = read_holds(self._metadata)
        kept = [held_by(holds, item) for item in self._records(subject, 2**63 - 1)]
        aside = len(self._asides(subject))
        return Found(len(kept) - sum(kept), sum(kept) + len(self._all_asides(subject)) - aside, aside)

    def register(self, subject: str, at: float) -> str:
        """What comes out of a spool later, and is older than `at`, is not stored."""
        erasure_id, salt = secrets.token_hex(6), secrets.token_bytes(_SALT_BYTES)
        at_us, digest = microseconds(at, "at"), subject_digest(salt, subject)

        def register(t: Transaction) -> None:
            t.put(ERASURES, f"{ordered(at_us)}#{erasure_id}", at=at_us, salt=salt, digest=digest)
            shown = {"before": time_text(at_us), "digest": digest.hex(), "salt": salt.hex()}
            self._trail.record(t, AuditAction.SUBJECT_ERASE, f"erasure:{erasure_id}", None, shown)

        self._metadata.change(register)
        return erasure_id

    def erase(self, erasure_id: str, subject: str, most: int) -> Deleted:
        """Deletes one batch, with its certificate."""
        before = next((one.at_us for one in erasures_since(self._metadata, 0) if one.id == erasure_id), None)
        if before is None:
            raise InternalError("internal", "The erasure was not registered.")
        finished = self._leaving.finish()
        most = min(most, MOST_AT_ONCE)
        done = self._leaving.alone(lambda mark: self._erase(erasure_id, subject, before, most, mark))
        return msgspec.structs.replace(done, ids=(*finished, *done.ids))

    def certify(self, erasure_id: str, gone: dict[str, Any]) -> None:
        """Writes the certificate of what was deleted elsewhere."""
        subject = f"erasure:{erasure_id}"
        self._metadata.change(lambda t: self._trail.record(t, AuditAction.RETENTION_DELETE, subject, None, gone))

    def _erase(self, erasure_id: str, subject: str, before: int, most: int, mark: int) -> Deleted:
        holds = read_holds(self._metadata)
        free = (item for item in self._records(subject, before) if not held_by(holds, item))
        records, asides = list(islice(free, most)), self._asides(subject)
        going = self._leaving.gather(records, asides, [])

        def certify(t: Transaction) -> None:
            if read_holds(self._metadata) != holds:
                raise ChangedMeanwhileError
            said = shown_counts(going, len(asides))
            self._trail.record(t, AuditAction.RETENTION_DELETE, f"erasure:{erasure_id}", None, said)

        if going.keys:
            self._leaving.remove(going, mark, certify)
        more = len(records) == most or not going.complete
        last = at_of(records[-1]["at"]) / 1e6 if more else None
        return Deleted(len(going.ids), going.outcomes, len(asides), last, tuple(going.ids))

    def _records(self, subject: str, until_us: int) -> Iterator[Item]:
        """The subject's records that are not younger, oldest first, without their bodies: one may have many."""
        if not subject:
            return
        pointers = self._feeds.requests.query_all(
            self._feeds.table, Span(about(subject), "r#", f"r#{ordered(until_us)}#~"), limit=_CHUNK
        )
        while some := list(islice(pointers, _CHUNK)):
            keys: list[Key] = [(pk(item["sk"].split("#", 2)[2]), RECORD) for item in some]
            found = self._feeds.requests.get_many(self._feeds.table, keys, _NAMES)
            yield from (found[key] for key in keys if key in found)

    def _asides(self, subject: str) -> list[Item]:
        """What was set aside about the subject and no hold keeps."""
        found = self._all_asides(subject)
        holds = holds_about(read_holds(self._metadata), subject) if found else []
        return [item for item in found if not held_by(holds, item)]

    def _all_asides(self, subject: str) -> list[Item]:
        """What was set aside about the subject."""
        if not subject:
            return []
        keys: list[Key] = []
        for item in self._pointers(Span(about(subject), "q#", "q#~")):
            prediction_id, _, digest = item["sk"][2:].rpartition("#")
            keys.append((pk(prediction_id), f"{ASIDE}#{digest}"))
        return list(self._feeds.requests.get_many(self._feeds.table, keys).values())

    def _pointers(self, span: Span) -> list[Item]:
        return list(self._feeds.requests.query_all(self._feeds.table, span))
