"""Tar streams: what goes in comes out; every trick is refused and touches nothing outside."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import ModelyardError, PublishError, TooLargeError
from modelyard.models.archive import extract_tar, pack_folder

BOUND = 1_000_000


def _tar(*members: tuple[str, bytes | None], form: int = tarfile.PAX_FORMAT, **fields: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_folder_arrives_as_it_was(tmp_path: Path, form: int) -> None:
    """Files and folders of all three forms arrive byte for byte, long and non-ASCII names too."""
    long = "/".join(["part" * 10] * 3) + "/weights.bin"
    members = {"model.onnx": b"x" * 1000, "empty": b"", long: b"y" * 512}
    if form != tarfile.USTAR_FORMAT:
        members["é" * 90] = b"z"
    data = _tar(("./", None), ("sub", None), *members.items(), form=form)
    assert extract_tar(io.BytesIO(data), tmp_path, BOUND) == sum(map(len, members.values()))
    assert {n: (tmp_path / n).read_bytes() for n in members} == members


def test_packing_is_the_way_back(tmp_path: Path) -> None:
    """pack_folder and extract_tar are inverse, and equal folders give equal bytes."""
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    (source / "sub/x").write_bytes(b"1" * 513)
    (source / "y").write_bytes(b"")
    packed = b"".join(pack_folder(source))
    assert packed == b"".join(pack_folder(source))
    extract_tar(io.BytesIO(packed), target, BOUND)
    assert ((target / "sub/x").read_bytes(), (target / "y").read_bytes()) == (b"1" * 513, b"")


def _sparse() -> bytes:
    info = tarfile.TarInfo("s")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "999999999999"}
    return info.tobuf(format=tarfile.PAX_FORMAT) + bytes(1024)


def _huge_header() -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = b"x", 2**33
    return info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024)


def _bad_sum() -> bytes:
    data = bytearray(_tar(("a", b"1")))
    data[0] ^= 1
    return bytes(data)


TRICKS: dict[str, Callable[[], bytes]] = {
    "up": lambda: _tar(("../x", b"1")),
    "up inside": lambda: _tar(("a/../../x", b"1")),
    "absolute": lambda: _tar(("/tmp/modelyard-x", b"1")),
    "backslash": lambda: _tar(("..\\x", b"1")),
    "newline": lambda: _tar(("a\nb", b"1")),
    "long": lambda: _tar(("x" * 300, b"1")),
    "long in all": lambda: _tar(("/".join(["x" * 250] * 16), b"1")),
    "folders that nobody names": lambda: _tar(*((f"{i}/a/b/c/d/e/f/g/h/i/j/k/l/m", b"") for i in range(1000))),
    "right to left": lambda: _tar(("\u202ex", b"1")),
    "symlink": lambda: _tar(("l", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": lambda: _tar(("l", b""), type=tarfile.LNKTYPE, linkname="../x"),
    "device": lambda: _tar(("d", b""), type=tarfile.CHRTYPE),
    "pipe": lambda: _tar(("d", b""), type=tarfile.FIFOTYPE),
    "twice": lambda: _tar(("a", b"1"), ("a", b"2")),
    "twice by case": lambda: _tar(("a", b"1"), ("A", b"2")),
    "file as folder": lambda: _tar(("a", b"1"), ("a/b", b"2")),
    "reserved": lambda: _tar(("manifest.json", b"{}")),
    "sparse": _sparse,
    "huge header": _huge_header,
    "checksum": _bad_sum,
    "cut off": lambda: _tar(("a", b"1" * 5000))[:1500],
    "empty": lambda: b"",
    "gzip": lambda: b"\x1f\x8b" + bytes(600),
    "text": lambda: b"hello" * 300,
    "many": lambda: _tar(*((f"f{i}", b"") for i in range(10_001))),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused_and_touch_nothing(tmp_path: Path, trick: str) -> None:
    """Each trick is a refusal with a code; the folder beside the target stays as it was."""
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(PublishError):
        extract_tar(io.BytesIO(TRICKS[trick]()), target, BOUND)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_the_bound_holds_before_the_bytes_are_read(tmp_path: Path) -> None:
    """An archive that states more than the bound is refused at the header: nothing of the file is written."""
    with pytest.raises(TooLargeError):
        extract_tar(io.BytesIO(_tar(("a", bytes(BOUND + 1)))), tmp_path, BOUND)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=3), st.integers(0, 2047), st.integers(0, 255))
def test_flipped_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, at: int, value: int
) -> None:
    """Any byte of an archive replaced by any other: unpacked or refused, never another exception."""
    data = bytearray(_tar(("sub/a", b"1" * 600), form=tarfile.USTAR_FORMAT))
    data[at] = value
    with contextlib.suppress(ModelyardError):
        extract_tar(io.BytesIO(bytes(data) + tail), tmp_path_factory.mktemp("t"), BOUND)
