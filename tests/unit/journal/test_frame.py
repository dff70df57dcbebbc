"""Frames: what was written is read back, and what is damaged is not (promise P1, F7)."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.journal.frame import COPY_BYTES, MARK, READ_BYTES, Frame, FrameReader, encode_frame, read_frames
from modelyard.testing import prediction_record

Body = tuple[bytes, bytes]


def turn(*bodies: Body, first: int = 0) -> bytes:
    """The bytes of one write: a frame per body, then the mark."""
    parts = [
        part
        for number, (request, answer) in enumerate(bodies, first)
        for part in encode_frame(prediction_record(f"p{number}").header, request, answer)
    ]
    return b"".join([*parts, MARK])


def read(data: bytes, offset: int = 0) -> tuple[list[Body], FrameReader]:
    reader = read_frames(io.BytesIO(data), offset)
    return [(frame.request, frame.answer) for frame in reader], reader


bodies = st.tuples(st.binary(max_size=300), st.binary(max_size=300))


@given(st.lists(st.lists(bodies, min_size=1, max_size=4), max_size=5))
def test_what_was_written_is_read(turns: list[list[Body]]) -> None:
    """Every body of every turn, byte for byte, in order, with nothing left over."""
    data = b"".join(turn(*one) for one in turns)
    seen, reader = read(data)
    assert seen == [body for one in turns for body in one]
    assert (reader.end, reader.bad_bytes, reader.damaged) == (len(data), 0, False)


def test_the_header_comes_back_whole() -> None:
    """Every field of the record's header survives."""
    header = prediction_record("p", request_id="räq", content_type=b"\xff", subject="s", arm=-1).header
    (frame,) = read_frames(io.BytesIO(b"".join([*encode_frame(header, b"q", b"a"), MARK])))
    assert frame.record_header() == header


def test_reading_goes_on_at_any_frames_end() -> None:
    """Each frame's end is a place to go on from, also within a turn."""
    data = turn((b"a", b"b"), (b"c", b"d")) + turn((b"e", b"f"))
    frames = list(read_frames(io.BytesIO(data)))
    for number, frame in enumerate(frames):
        rest, reader = read(data, frame.end)
        assert rest == [(f.request, f.answer) for f in frames[number + 1 :]]
        assert reader.end == len(data)


def test_bodies_over_the_read_size_are_whole() -> None:
    """A frame may be larger than what is read at once."""
    large = bytes(READ_BYTES + 5)
    seen, _ = read(turn((b"a", large), (large, b"b")))
    assert seen == [(b"a", large), (large, b"b")]


def test_a_cut_at_every_byte_of_the_last_turn_loses_that_turn_alone() -> None:
    """F7: wherever the file ends within the last turn, all earlier records are there, none of the last, and the
    number of bad bytes is right."""
    good, last = turn((b"one", b"1"), (b"two", b"2")), turn((b"three", b"3"), (b"four", b"4"), first=2)
    for cut in range(len(last)):
        seen, reader = read(good + last[:cut])
        assert seen == [(b"one", b"1"), (b"two", b"2")]
        assert (reader.end, reader.bad_bytes) == (len(good), cut)
        assert not reader.damaged


def test_a_flipped_bit_at_every_position_of_the_last_record_is_found() -> None:
    """F7: no bit of the last turn can change without the turn being refused; all earlier records stay."""
    good, last = turn((b"one", b"1")), turn((b"two", b"2"), first=1)
    for position in range(len(last)):
        for bit in range(8):
            flipped = bytearray(good + last)
            flipped[len(good) + position] ^= 1 << bit
            seen, reader = read(bytes(flipped))
            assert seen == [(b"one", b"1")]
            assert (reader.end, reader.bad_bytes) == (len(good), len(last))


def test_a_turn_without_its_mark_is_no_record() -> None:
    """A reader that comes between a short write and its truncation sees nothing of that turn."""
    whole = turn((b"one", b"1"), (b"two", b"2"))
    seen, reader = read(whole[: -len(MARK)])
    assert seen == []
    assert reader.end == 0


def test_zeros_and_noise_are_no_frames() -> None:
    """What a disk may leave after a power loss is refused as damage, not read as an empty record."""
    for tail in (bytes(4096), b"\xff" * 100):
        seen, reader = read(turn((b"one", b"1")) + tail)
        assert (len(seen), reader.bad_bytes) == (1, len(tail))


@given(st.binary(max_size=400))
def test_noise_never_raises(noise: bytes) -> None:
    """The reader takes any bytes."""
    seen, reader = read(noise)
    assert seen == []
    assert reader.bad_bytes == len(noise)


def test_a_body_that_holds_frames_is_one_body() -> None:
    """Frames inside a request are never read as records, not even where its own frame is damaged: nothing is
    searched for behind damage."""
    inner = turn((b"forged", b"!"), first=9)
    data = bytearray(turn((inner, b"1")))
    assert read(bytes(data))[0] == [(inner, b"1")]
    data[10] ^= 1
    assert read(bytes(data))[0] == []


def test_an_unknown_schema_is_read_raw() -> None:
    """A frame of a later version is yielded, and says so when its header is asked for."""
    frame = next(iter(read_frames(io.BytesIO(turn((b"q", b"a"))))))
    later = msgspec.structs.replace(frame, schema=3)
    with pytest.raises(msgspec.DecodeError, match="schema 3"):
        later.record_header()


def test_a_file_that_shrinks_while_it_is_read_gives_what_is_left() -> None:
    """Truncation by the owner in the middle of reading yields the whole turns before it and raises nothing."""
    good, bad = turn((b"one", b"1")), turn((b"two", b"2"), first=1)

    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            self.truncate(len(good) + 10)
            return super().read(size)

    assert [frame.request for frame in read_frames(Shrinking(good + bad))] == [b"one"]


class Rewritten(io.BytesIO):
    """A file whose owner truncates a failed write between the reader's first read and its second, and writes another
    turn at the same place."""

    def __init__(self, kept: bytes, failed: bytes, after: bytes) -> None:
        super().__init__(kept + failed)
        self._after = kept + after
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads == 2:
            position = self.tell()
            self.seek(0)
            self.truncate()
            self.write(self._after)
            self.seek(position)
        return super().read(size)


def test_a_turn_written_over_another_is_not_mixed_with_it() -> None:
    """P1: what was read of a failed write does not count because another write, with frames at the same borders, was
    finished in its place meanwhile; that one is read whole by the next pass, and what came before is read."""
    kept = turn((b"kept", b"a"))
    # The second frame begins where the first read ends.
    body = bytes(READ_BYTES - len(kept) - (len(turn((b"", b"f"))) - len(MARK)))
    failed = turn((body, b"f"), (b"x", b"f"), (b"x", b"f"))[: -len(MARK)]
    after = turn((body, b"2"), (b"x", b"2"), (b"x", b"2"), first=5)
    assert len(after) == len(failed) + len(MARK)
    file = Rewritten(kept, failed + MARK, after)  # as long as the write will be: the reader asks for the size once
    reader = read_frames(file)
    assert [frame.answer for frame in reader] == [b"a"]
    assert (file.reads > 1, reader.end) == (True, len(kept))
    again = read_frames(file, reader.end)
    assert [(frame.record_header().id, frame.answer) for frame in again] == [("p5", b"2"), ("p6", b"2"), ("p7", b"2")]


def test_frames_of_the_first_schema_are_still_read() -> None:
    """A spool that an earlier version left behind: the same header, whatever the order of its fields was."""
    header = prediction_record("p1", status=422, code="value_invalid", subject="s-1").header
    values = [
        header.id, header.at_ns, header.request_id, header.surface, header.content_type, header.content_encoding,
        header.request_header_length, header.answer_header_length, header.key_id, header.client, header.endpoint,
        header.model, header.version, header.arm, header.manifest, header.redaction, header.status, header.code,
        header.rows, header.queue_us, header.compute_us, header.total_us, header.subject,
    ]  # fmt: skip
    assert Frame(1, msgspec.msgpack.encode(values), b"q", b"a", 0).record_header() == header
    with pytest.raises(msgspec.DecodeError):
        Frame(1, msgspec.msgpack.encode(values[:-1]), b"q", b"a", 0).record_header()


@pytest.mark.parametrize("size", [0, 1, COPY_BYTES - 400, COPY_BYTES, 3 * COPY_BYTES])
def test_a_frame_in_one_piece_or_three(size: int) -> None:
    """Whatever its size, the same bytes come back."""
    header = prediction_record("p1", request_id="é" * 3, queue_us=2**40, content_type=b"x" * 300).header
    (frame,) = read_frames(io.BytesIO(b"".join([*encode_frame(header, bytes(size), b"a"), MARK])))
    assert (len(frame.request), frame.answer) == (size, b"a")
    assert frame.record_header() == msgspec.structs.replace(header, queue_us=2**32 - 1)
