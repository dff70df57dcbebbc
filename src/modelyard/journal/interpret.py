"""From a frame to a row: what the drain makes of the bytes that came and left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import orjson

from modelyard.codec.log import masked_error, subject_of
from modelyard.core.clock import Clock
from modelyard.core.redaction import Rules, read_policy
from modelyard.core.types import EncodedAnswer, RawRequest, Signature, Surface
from modelyard.journal.frame import Frame
from modelyard.journal.record import PredictionRecord, RecordHeader

HEADER_UNKNOWN = "header_unknown"
SIGNATURE_UNKNOWN = "signature_unknown"
UNDECODED = "undecoded"
REQUEST_REFUSED = "request_refused"
STORE_REFUSED = "store_refused"


class DecodeForLog(Protocol):
    """The decoder that server and drain share (codec/log.py)."""

    def __call__(
        self,
        surface: Surface,
        raw: RawRequest,
        answer: EncodedAnswer,
        signature: Signature,
        redaction: Rules,
    ) -> tuple[Any, Any]:
        """Inputs and outputs as JSON values, columns redacted by their rules. Raises if it cannot."""


class Decompress(Protocol):
    """Undoes Content-Encoding, bounded (codec/compression.py)."""

    def __call__(self, body: bytes, encoding: bytes, max_bytes: int) -> bytes:
        """The body as it was."""


class RecordDecoder:
    """Makes records of frames. Never raises for what a frame holds: what it cannot read is kept raw and flagged.

    Flags: `header_unknown` (written by another version), `signature_unknown` (no manifest under the digest),
    `undecoded` (an answered request that the decoder does not understand), `request_refused` (the caller's request
    was wrong, and answered so), `store_refused` (see `fallbacks`), "" for all others. `raw` is request and answer
    one after the other; a redaction policy forbids that. Under a policy the payload's digest is that of the header
    alone (which differs for any two requests): a digest over one of few possible values can be guessed.
    """

    def __init__(
        self,
        signature: Callable[[str], Signature | None],
        decode: DecodeForLog,
        decompress: Decompress,
        clock: Clock,
        max_body_bytes: int,
    ) -> None:
        self._signature = signature
        self._decode = decode
        self._decompress = decompress
        self._clock = clock
        self._max_body_bytes = max_body_bytes

    def record(self, frame: Frame) -> PredictionRecord:
        """The frame's row. Raises only what `signature` raises."""
        try:
            header = frame.record_header()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            digest = _digest(frame)
            return self._raw(self._made_up(digest), frame, digest, HEADER_UNKNOWN, header_bytes=frame.header)
        digest = hashlib.sha256(frame.header).hexdigest() if read_policy(header.redaction) else _digest(frame)
        signature = self._signature(header.manifest)
        if signature is None:
            return self._raw(header, frame, digest, SIGNATURE_UNKNOWN)
        try:
            header, inputs, outputs = self._values(header, frame, signature)
        except Exception:  # whatever a body does to a decoder, the record stays
            return self._raw(header, frame, digest, UNDECODED if header.status < 400 else REQUEST_REFUSED)
        return PredictionRecord(header, inputs, outputs, len(frame.request), len(frame.answer), digest)

    def _values(self, header: RecordHeader, frame: Frame, signature: Signature) -> tuple[RecordHeader, Any, Any]:
        body = frame.request
        if header.content_encoding:
            body = self._decompress(body, header.content_encoding, self._max_body_bytes)
        length = header.answer_header_length
        answer = frame.answer or orjson.dumps({"error": "No answer was sent.", "code": header.code})
        raw = RawRequest(body, header.content_type or None, header.request_header_length or None)
        values = self._decode(
            Surface(header.surface),
            raw,
            EncodedAnswer(answer, None if length < 0 else length),
            signature,
            read_policy(header.redaction),
        )
        if not header.subject and (subject := subject_of(raw)):
            header = msgspec.structs.replace(header, subject=subject)
        return header, *values

    def _raw(
        self, header: RecordHeader, frame: Frame, digest: str, flag: str, *, header_bytes: bytes = b""
    ) -> PredictionRecord:
        outputs = None
        if header.status >= 400:
            try:
                outputs = orjson.loads(frame.answer)  # an error of ours
                outputs = masked_error(outputs) if read_policy(header.redaction) else outputs
            except orjson.JSONDecodeError:
                outputs = None
        raw = None if read_policy(header.redaction) else header_bytes + frame.request + frame.answer
        return PredictionRecord(header, None, outputs, len(frame.request), len(frame.answer), digest, raw, flag)

    def _made_up(self, digest: str) -> RecordHeader:
        """A header for a frame whose own cannot be read; the id comes from the bytes, so that it arrives once."""
        return RecordHeader(
            f"raw-{digest[:26]}", int(self._clock.now() * 1e9), 0, 0, 0, 0, 0, -1, "", HEADER_UNKNOWN, "", "",
            "", b"", b"", b"", "", "", "", "", "", -1, "", "none",
        )  # fmt: skip


def _digest(frame: Frame) -> str:
    return hashlib.sha256(frame.header + frame.request + frame.answer).hexdigest()


def fallbacks(record: PredictionRecord, frame: Frame) -> tuple[PredictionRecord, PredictionRecord]:
    """The record as a store may still take it that refuses it as it is: raw instead of decoded, then bare."""
    bare = msgspec.structs.replace(record, inputs=None, outputs=None, raw=None, flag=STORE_REFUSED)
    if read_policy(record.header.redaction):
        return bare, bare
    return msgspec.structs.replace(bare, raw=frame.request + frame.answer), bare
