"""Content-Encoding both ways: bounded, complete, honest."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.codec.compression import choose_encoding, compress, decompress
from modelyard.core.errors import ModelyardError

TEXT = b'{"inputs": []}' * 500


def code_of(body: bytes, encoding: bytes, most: int = 1 << 20) -> str:
    with pytest.raises(ModelyardError) as caught:
        decompress(body, encoding, most)
    return caught.value.code


@given(st.binary(max_size=5000))
def test_what_was_compressed_comes_back(body: bytes) -> None:
    """gzip, deflate and identity, in any case and with spaces around."""
    assert decompress(gzip.compress(body), b" GZIP ", 5000) == body
    assert decompress(zlib.compress(body), b"deflate", 5000) == body
    assert decompress(body, b"identity", 5000) == body


def test_a_gzip_body_may_have_members() -> None:
    """Members follow each other; together they keep the bound."""
    body = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"cd")
    assert decompress(body, b"gzip", 4) == b"abcd"
    assert code_of(body, b"gzip", 3) == "decompressed_too_large"


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"identity"])
def test_the_bound_is_exact(encoding: bytes) -> None:
    """As many bytes as allowed pass, one more does not."""
    packed = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"identity": bytes}[encoding](TEXT)
    assert decompress(packed, encoding, len(TEXT)) == TEXT
    assert code_of(packed, encoding, len(TEXT) - 1) == "decompressed_too_large"


def test_a_bomb_is_refused() -> None:
    """A small body that would become huge is refused at the bound."""
    bomb = gzip.compress(bytes(50 << 20))
    assert len(bomb) < 100_000
    assert code_of(bomb, b"gzip", 1 << 20) == "decompressed_too_large"


def test_large_members_are_read_in_pieces() -> None:
    """Members longer than one piece, and ends at any place of a piece, keep their bytes."""
    parts = [random.Random(size).randbytes(size) for size in (65_536, 200_000, 1, 0, 65_400, 65_536 * 2)]
    whole = b"".join(parts)
    assert decompress(b"".join(map(gzip.compress, parts)), b"gzip", len(whole)) == whole
    assert code_of(b"".join(map(gzip.compress, parts)), b"gzip", len(whole) - 1) == "decompressed_too_large"


def test_members_without_end_are_refused() -> None:
    """A large body of tiny members is refused quickly, not copied once per member."""
    assert code_of(gzip.compress(b"") * 300_000, b"gzip") == "decompression_failed"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(TEXT, mtime=0)[:-1], b"gzip"),
        (gzip.compress(TEXT, mtime=0)[:20], b"gzip"),
        (gzip.compress(TEXT, mtime=0) + b"x", b"gzip"),
        (gzip.compress(TEXT, mtime=0) + b"\x00" * 8, b"gzip"),
        (gzip.compress(TEXT, mtime=0)[:-4] + b"\x00\x00\x00\x00", b"gzip"),
        (zlib.compress(TEXT) + b"x", b"deflate"),
        (zlib.compress(TEXT) * 2, b"deflate"),
        (zlib.compress(TEXT)[:-1], b"deflate"),
        (zlib.compress(TEXT), b"gzip"),
        (b"", b"gzip"),
        (b"", b"deflate"),
        (TEXT, b"gzip"),
    ],
)
def test_damaged_bodies_are_refused(body: bytes, encoding: bytes) -> None:
    """Truncated, damaged, mislabelled, or with bytes after the end."""
    assert code_of(body, encoding) == "decompression_failed"


@pytest.mark.parametrize("encoding", [b"br", b"gzip, gzip", b"zstd", b"\xff"])
def test_unknown_encodings_are_refused(encoding: bytes) -> None:
    """An encoding that is not spoken is named in the refusal."""
    assert code_of(TEXT, encoding) == "encoding_unsupported"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"gzip", b"gzip"),
        (b"deflate, gzip", b"gzip"),
        (b"deflate;q=0.9, gzip;q=0.5", b"deflate"),
        (b"gzip;q=0", None),
        (b"gzip;q=0, deflate", b"deflate"),
        (b"*", b"gzip"),
        (b"*;q=0", None),
        (b"br", None),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.2, gzip;q=0.5", b"gzip"),
        (b"gzip;q=nan", None),
        (b"gzip;q=7", None),
        (b"gzip;q=", None),
        (b"", None),
        (b"GZIP ; Q=1", b"gzip"),
    ],
)
def test_the_callers_weights_are_honoured(accept: bytes, chosen: bytes | None) -> None:
    """The highest q-value wins, q=0 forbids, nonsense counts as 0."""
    assert choose_encoding(accept) == chosen


def test_small_bodies_stay_as_they_are() -> None:
    """Under 1 KiB nothing is compressed; from there on it is, and comes back."""
    assert compress(b"x" * 1023, b"gzip") == (b"x" * 1023, None)
    assert compress(TEXT, None) == (TEXT, None)
    for accept in (b"gzip", b"deflate"):
        packed, encoding = compress(TEXT, accept)
        assert encoding == accept
        assert len(packed) < len(TEXT)
        assert decompress(packed, accept, len(TEXT)) == TEXT
