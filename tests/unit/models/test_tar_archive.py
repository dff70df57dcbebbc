"""Tar streams: what goes in comes out; every trick is refused and touches nothing outside."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archivetricks import TRICKS, tar
from modelyard.core.errors import ModelyardError, PublishError, TooLargeError
from modelyard.models.archive import extract_tar, pack_folder

BOUND = 1_000_000


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_folder_arrives_as_it_was(tmp_path: Path, form: int) -> None:
    """Files and folders of all three forms arrive byte for byte, long and non-ASCII names too."""
    long = "/".join(["part" * 10] * 3) + "/weights.bin"
    members = {"model.onnx": b"x" * 1000, "empty": b"", long: b"y" * 512}
    if form != tarfile.USTAR_FORMAT:
        members["é" * 90] = b"z"
    data = tar(("./", None), ("sub", None), *members.items(), form=form)
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
        extract_tar(io.BytesIO(tar(("a", bytes(BOUND + 1)))), tmp_path, BOUND)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=3), st.integers(0, 2047), st.integers(0, 255))
def test_flipped_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, at: int, value: int
) -> None:
    """Any byte of an archive replaced by any other: unpacked or refused, never another exception."""
    data = bytearray(tar(("sub/a", b"1" * 600), form=tarfile.USTAR_FORMAT))
    data[at] = value
    with contextlib.suppress(ModelyardError):
        extract_tar(io.BytesIO(bytes(data) + tail), tmp_path_factory.mktemp("t"), BOUND)
