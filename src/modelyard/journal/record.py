"""A prediction record: the header that is spooled with the raw bytes, and the row that the drain makes of it."""

from __future__ import annotations

from typing import Any

import msgspec


class RecordHeader(msgspec.Struct, frozen=True, array_like=True):
    """All that decoding a frame needs later, written before the answer; never a credential.

    `at_ns` is UNIX nanoseconds when the request was complete; durations are microseconds. `content_encoding` is the
    request's ("" for none), the answer is always stored uncompressed. `request_header_length` is the text of
    Inference-Header-Content-Length, `answer_header_length` -1 when the answer is plain JSON. `code` is the error's
    code or "". `idempotency` is the client's Idempotency-Key, "" without one. `arm` is the version's position
    in the endpoint's weights, -1 if the caller named the version.

    What differs from request to request comes first; the rest (STANDING_FIELDS of them, from `surface` on) is the same
    for all requests of one key with one head to one version, and is encoded once for them.
    """

    id: str
    at_ns: int
    status: int
    rows: int
    queue_us: int
    compute_us: int
    total_us: int
    answer_header_length: int
    request_id: str
    code: str
    subject: str
    idempotency: str
    surface: str
    content_type: bytes
    content_encoding: bytes
    request_header_length: bytes
    key_id: str
    client: str
    endpoint: str
    model: str
    version: str
    arm: int
    manifest: str
    redaction: str


STANDING_FIELDS = 12


class PredictionRecord(msgspec.Struct, frozen=True):
    """One row of the prediction log (DATA-2). `inputs` and `outputs` are JSON values, redacted by policy; None and
    `raw` set where the frame could not be decoded (`flag` says why)."""

    header: RecordHeader
    inputs: Any
    outputs: Any
    request_bytes: int
    answer_bytes: int
    payload_sha256: str
    raw: bytes | None = None
    flag: str = ""
