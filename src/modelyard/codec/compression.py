"""Content-Encoding, both ways, within a bound.

`deflate` is the zlib format, as RFC 9110 8.4.1.2 defines it. A gzip body may have several members (RFC 1952 2.2);
bytes after the last one are refused, for no other reader would see them the same way.
"""

from __future__ import annotations

import zlib
from typing import NoReturn

from modelyard.core.errors import InvalidRequestError, MediaTypeError, TooLargeError

MIN_COMPRESSED_BYTES = 1024
_LEVEL = 1  # on numbers as text, higher levels cost several times the time for a tenth of the size
_PIECE_BYTES = 1 << 16
_MAX_MEMBERS = 10_000
_WINDOW = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """The body with its Content-Encoding undone, at most `max_bytes` long; no more than that is ever built.

    Raises MediaTypeError(encoding_unsupported), TooLargeError(decompressed_too_large),
    InvalidRequestError(decompression_failed).
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        if len(body) > max_bytes:
            _too_large(max_bytes)
        return body
    if name not in _WINDOW:
        raise MediaTypeError(
            "encoding_unsupported",
            "This Content-Encoding is not spoken here.",
            field="content-encoding",
            expected="gzip, deflate or identity",
            got=encoding[:64].decode("latin-1"),
            example="gzip",
        )
    try:
        return _inflate(body, _WINDOW[name], max_bytes, many=name != b"deflate")
    except zlib.error:
        raise _failure(name, "damaged data") from None


def _inflate(body: bytes, window: int, max_bytes: int, *, many: bool) -> bytes:
    view = memoryview(body)
    parts: list[bytes] = []
    left, position = max_bytes, 0
    for _ in range(_MAX_MEMBERS if many else 1):
        part, position = _member(view, position, window, left)
        if part is None:
            _too_large(max_bytes)
        parts.append(part)
        left -= len(part)
        if position == len(body):
            return b"".join(parts)
    raise _failure(b"gzip" if many else b"deflate", f"{len(body) - position} bytes after the end")


def _member(view: memoryview, start: int, window: int, most: int) -> tuple[bytes | None, int]:
    """One member and where it ends; None if it is longer than `most`. Fed in pieces, because zlib copies all input
    that lies behind a member's end: many small members in one large body would be copied again and again."""
    member = zlib.decompressobj(window)
    parts: list[bytes] = []
    size, position = 0, start
    while not member.eof:
        piece = view[position : position + _PIECE_BYTES]
        if not piece:
            raise _failure(b"gzip" if window != zlib.MAX_WBITS else b"deflate", "truncated data")
        part = member.decompress(piece, most + 1 - size)
        position += len(piece) - len(member.unused_data)
        size += len(part)
        if size > most:
            return None, position
        parts.append(part)
    return b"".join(parts), position


def _too_large(max_bytes: int) -> NoReturn:
    raise TooLargeError(
        "decompressed_too_large",
        f"The body is larger than {max_bytes} bytes once decompressed.",
        field="body",
        expected=f"at most {max_bytes} bytes (http.max_body_bytes)",
        got=f"more than {max_bytes} bytes",
    )


def _failure(name: bytes, got: str) -> InvalidRequestError:
    return InvalidRequestError(
        "decompression_failed",
        "The body does not hold what its Content-Encoding says.",
        field="body",
        expected=f"complete {name.decode()} data",
        got=got,
    )


def compress(body: bytes, accept_encoding: bytes | None) -> tuple[bytes, bytes | None]:
    """The body in the best encoding that the caller accepts, and the encoding's name; None for as it was.

    Bodies under 1 KiB stay as they are: the header would cost more than it saves.
    """
    if accept_encoding is None or len(body) < MIN_COMPRESSED_BYTES:
        return body, None
    chosen = choose_encoding(accept_encoding)
    if chosen is None:
        return body, None
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[chosen])
    return packer.compress(body) + packer.flush(), chosen


def choose_encoding(accept_encoding: bytes) -> bytes | None:
    """gzip or deflate, whichever has the higher q-value (gzip if equal), or None (RFC 9110 12.5.3)."""
    weights = dict(_weight_of(part) for part in accept_encoding.lower().split(b",")[:32])
    other = weights.get(b"*", 0.0)
    best = max((b"gzip", b"deflate"), key=lambda name: weights.get(name, other))
    weight = weights.get(best, other)
    return best if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def _weight_of(part: bytes) -> tuple[bytes, float]:
    name, _, parameters = part.partition(b";")
    key, _, value = parameters.partition(b"=")
    if key.strip() != b"q":
        return name.strip(), 1.0
    try:
        weight = float(value)
    except ValueError:
        return name.strip(), 0.0
    return name.strip(), weight if 0 <= weight <= 1 else 0.0
