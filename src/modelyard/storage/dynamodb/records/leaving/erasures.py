"""Erasures that are in force, as the sink asks for them."""

from __future__ import annotations

import hashlib

import msgspec

from modelyard.journal.record import RecordHeader
from modelyard.storage.dynamodb.attributes import ordered
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.requests import Span

ERASURES = "erasure"


class Erasure(msgspec.Struct, frozen=True):
    """One deletion by subject: what is about the subject and not younger than `at_us` goes. The subject itself is
    written down nowhere."""

    id: str
    at_us: int
    salt: bytes
    digest: bytes

    def hits(self, header: RecordHeader) -> bool:
        """Whether a record must not be stored."""
        if not header.subject or header.at_ns // 1000 > self.at_us:
            return False
        return subject_digest(self.salt, header.subject) == self.digest


def subject_digest(salt: bytes, subject: str) -> bytes:
    """What stands for a subject."""
    return hashlib.sha256(salt + subject.encode("utf-8", "surrogatepass")).digest()


def erasures_since(metadata: Metadata, at_us: int) -> list[Erasure]:
    """Those that reach records of this time, and later ones."""
    items = metadata.requests.query_all(metadata.table, Span(ERASURES, ordered(at_us)))
    return [Erasure(item["sk"].partition("#")[2], int(item["at"]), item["salt"], item["digest"]) for item in items]
