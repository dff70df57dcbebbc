"""How a record lies in a spool file.

A frame is a prefix of 18 bytes, little-endian, then its payload:

    length u32 | CRC-32C u32 | schema u16 | header length u32 | request length u32 | header, request, answer

`length` counts the payload; the checksum covers everything behind itself, so that every bit of a frame is checked
(a changed length checks the wrong bytes). The header is a RecordHeader in MessagePack; request and answer are the
bytes that came and left. Schema 2 is this form; schema 1 had the header's fields in another order, and is still read.

All frames of one write are followed by a mark, a frame of schema 0xFFFF without payload. Frames count only once
their mark is there: a write that failed half-way, and was or will be truncated, is never read as records, not even by
a reader that comes between the write and the truncation. (Commit records of write-ahead logs do the same.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import google_crc32c
import msgspec

from modelyard.journal.record import STANDING_FIELDS, RecordHeader

SCHEMA = 2
MARK_SCHEMA = 0xFFFF
READ_BYTES = 4 * 1024 * 1024

_PREFIX = struct.Struct("<IIHII")
_TAIL = struct.Struct("<HII")
_CHECK = struct.Struct("<II")
_PREFIX_BYTES = _PREFIX.size
_TAIL_OFFSET = _CHECK.size

COPY_BYTES = 64 * 1024
"""Frames up to this size are put together in one piece: copying them is cheaper than three checksums and writes."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RecordHeader).decode
_crc, _extend = google_crc32c.value, google_crc32c.extend
_tail, _check = _TAIL.pack, _CHECK.pack

_MOST = 0xFFFFFFFF
_NUMBERS = struct.Struct(">BQBHBIBIBIBIBi").pack
_U64, _U32, _U16, _I32 = 0xCF, 0xCE, 0xCD, 0xD2
_OPENING = b"\xdc" + struct.pack(">H", len(RecordHeader.__struct_fields__))
_NO_TEXTS = b"\xa0\xa0\xa0"


def encode_standing(fields: Sequence[str | bytes | int]) -> bytes:
    """The last STANDING_FIELDS values of a RecordHeader, in its order, to be given to `frame_of` again and again."""
    if len(fields) != STANDING_FIELDS:
        raise ValueError(f"{len(fields)} values instead of {STANDING_FIELDS}")
    return b"".join(map(_encode, fields))


def frame_of(
    id: bytes,
    at_ns: int,
    status: int,
    rows: int,
    times_us: tuple[int, int, int],
    answer_header_length: int,
    request_id: bytes,
    texts: tuple[str, str, str] | None,
    standing: bytes,
    request: bytes,
    answer: bytes,
) -> tuple[bytes, ...]:
    """A frame as parts to be written one after the other; bodies over COPY_BYTES are not copied. `times_us` are queue,
    compute and total, `texts` code, subject and idempotency (None: all empty); `id` and `request_id` are ASCII of at
    most 255 bytes."""
    queue_us, compute_us, total_us = times_us
    numbers = _NUMBERS(
        _U64, at_ns, _U16, status, _U32, rows, _U32, min(queue_us, _MOST), _U32, min(compute_us, _MOST),
        _U32, min(total_us, _MOST), _I32, answer_header_length,
    )  # fmt: skip
    told = _NO_TEXTS if texts is None else b"".join(map(_encode, texts))
    head = b"%b\xd9%c%b%b\xd9%c%b%b%b" % (
        _OPENING, len(id), id, numbers, len(request_id), request_id, told, standing
    )  # fmt: skip
    tail = _tail(SCHEMA, len(head), len(request))
    length = len(head) + len(request) + len(answer)
    if length <= COPY_BYTES:
        frame = tail + head + request + answer
        return (_check(length, _crc(frame)) + frame,)
    checksum = _extend(_extend(_crc(tail + head), request), answer)
    return _check(length, checksum) + tail + head, request, answer


def encode_frame(header: RecordHeader, request: bytes, answer: bytes) -> tuple[bytes, ...]:
    """The frame of a header that is there already."""
    values = tuple(getattr(header, name) for name in RecordHeader.__struct_fields__)
    return frame_of(
        header.id.encode(), header.at_ns, header.status, header.rows,
        (header.queue_us, header.compute_us, header.total_us), header.answer_header_length,
        header.request_id.encode(), (header.code, header.subject, header.idempotency),
        encode_standing(values[-STANDING_FIELDS:]), request, answer,
    )  # fmt: skip


def _mark() -> bytes:
    tail = _tail(MARK_SCHEMA, 0, 0)
    return _check(0, _crc(tail)) + tail


MARK = _mark()
"""Ends the frames of one write."""


class Frame(msgspec.Struct, frozen=True):
    """A frame whose checksum held. `end` is the offset behind it, `header` still MessagePack."""

    schema: int
    header: bytes
    request: bytes
    answer: bytes
    end: int

    def record_header(self) -> RecordHeader:
        """The decoded header; msgspec.DecodeError (a ValueError) if this program does not know its form."""
        if self.schema == SCHEMA:
            return _decode(self.header)
        if self.schema == 1:
            return _from_first(self.header)
        raise msgspec.DecodeError(f"schema {self.schema} is not known here")


_FIRST_ORDER = (
    "id", "at_ns", "request_id", "surface", "content_type", "content_encoding", "request_header_length",
    "answer_header_length", "key_id", "client", "endpoint", "model", "version", "arm", "manifest", "redaction",
    "status", "code", "rows", "queue_us", "compute_us", "total_us", "subject",
)  # fmt: skip
"""The header's fields in schema 1."""


def _from_first(header: bytes) -> RecordHeader:
    values = msgspec.msgpack.decode(header)
    if not isinstance(values, list) or len(values) != len(_FIRST_ORDER):
        raise msgspec.DecodeError("the header of schema 1 has other fields")
    named = {**dict(zip(_FIRST_ORDER, values, strict=True)), "idempotency": ""}
    return msgspec.convert([named[name] for name in RecordHeader.__struct_fields__], RecordHeader)


class FrameReader:
    """Iterates over the complete frames from `offset` to the file's end as it was when iteration began.

    After the last one, `end` is the offset behind what is good, `bad_bytes` what follows it, and `damaged` whether
    that begins with bytes that fail their checksum although all of them are there (not just an unfinished write).
    Memory is bounded by one write plus READ_BYTES.
    """

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self.end = offset
        self.bad_bytes = 0
        self.damaged = False
        self._file = file
        self._buffer = b""
        self._base = offset
        self._loads = 0

    def __iter__(self) -> Iterator[Frame]:
        size = self._file.seek(0, 2)
        position = self.end
        written: list[Frame] = []
        loads = self._loads
        while (frame := self._frame_at(position, size)) is not None:
            position = frame.end
            if frame.schema != MARK_SCHEMA:
                written.append(frame)
                continue
            if self._loads != loads and not self._begins_with(written):
                break
            self.end = position
            yield from written
            written = []
            loads = self._loads
        self.bad_bytes = max(size - self.end, 0)

    def _begins_with(self, written: Sequence[Frame]) -> bool:
        """Whether the write that ends with this mark is the one these frames were read from. Between two reads its
        owner may have truncated a failed write and begun another at the same place, with a mark of its own."""
        if not written:
            return True
        self._file.seek(self.end + _PREFIX_BYTES)
        return self._file.read(len(written[0].header)) == written[0].header

    def _frame_at(self, position: int, size: int) -> Frame | None:
        if position + _PREFIX_BYTES > size:
            return None
        at = self._load(position, position + _PREFIX_BYTES)
        length, checksum, schema, header_bytes, request_bytes = _PREFIX.unpack_from(self._buffer, at)
        end = position + _PREFIX_BYTES + length
        if end > size:
            return None
        at = self._load(position, end)
        body = self._buffer[at + _TAIL_OFFSET : at + _PREFIX_BYTES + length]
        if _crc(body) != checksum or header_bytes + request_bytes > length:
            self.damaged = True
            return None
        header_end = _TAIL.size + header_bytes
        request_end = header_end + request_bytes
        return Frame(schema, body[_TAIL.size : header_end], body[header_end:request_end], body[request_end:], end)

    def _load(self, start: int, stop: int) -> int:
        """Makes the bytes of [start, stop) lie in the buffer; where they start in it."""
        if start < self._base or stop > self._base + len(self._buffer):
            self._loads += 1
            self._file.seek(start)
            self._buffer = self._file.read(max(READ_BYTES, stop - start))
            self._base = start
            if len(self._buffer) < stop - start:  # truncated by its owner meanwhile
                self._buffer += bytes(stop - start - len(self._buffer))
        return start - self._base


def read_frames(file: BinaryIO, offset: int = 0) -> FrameReader:
    """The frames of a spool file from a frame's border on; see FrameReader for what is known after the last."""
    return FrameReader(file, offset)
