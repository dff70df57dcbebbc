"""A prediction record: the header that is spooled with the raw bytes, and the row that the drain makes of it."""

from __future__ import annotations

from typing import Any

import msgspec


class RecordHeader(msgspec.Struct, frozen=True, array_like=True):
    """All that decoding a frame needs later, written before the answer; never a credential.

    `at_ns` is UNIX nanoseconds when the request was complete; durations are microseconds. `content_encoding` is the
    request's ("" for none), the answer is always stored uncompressed. `request_header_length` is the text of
    Inference-Header-Content-Length, `answer_header_length` -1 when the answer is plain JSON. `code` is the error's
    code or "". `arm` is the version's position in the endpoint's weights, -1 if the caller named the version.
    """

    id: str
    at_ns: int
    request_id: str
    surface: str
    content_type: bytes
    content_encoding: bytes
    request_header_length: bytes
    answer_header_length: int
    key_id: str
    client: str
    endpoint: str
    model: str
    version: str
    arm: int
    manifest: str
    redaction: str
    status: int
    code: str
    rows: int
    queue_us: int
    compute_us: int
    total_us: int
    subject: str = ""


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
