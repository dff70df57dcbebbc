"""Folders as one stream: an uncompressed tar, read by a reader that believes nothing, written deterministically.

The reader is small on purpose: it knows regular files and folders of the ustar, pax and GNU long-name forms
(POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"); links, devices and sparse files are
refused, and no header makes it read more than 64 KiB into memory.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from modelyard.core.errors import PublishError
from modelyard.models.stage import CHUNK_BYTES, MAX_FILES, check_path, too_large, unsafe

BLOCK = 512
MAX_HEADER_BYTES = 64 * 1024
MAX_DIGITS = 18
"""Of a number in a pax header."""


def extract_tar(stream: BinaryIO, folder: Path, max_bytes: int) -> int:
    """Unpacks a tar stream into an empty private folder; returns the bytes of its files.

    PublishError("archive_unsafe") for traversal, absolute names, links, devices, duplicates, bad headers, a stream
    that is cut off; TooLargeError beyond `max_bytes`. Nothing outside `folder` is touched; what was unpacked before
    a refusal is the caller's to delete.
    """
    reader = _Reader(stream)
    total, seen, folders = 0, set[str](), set[str]()
    for name, kind, size in reader.members():
        path = _member_path(name, kind, seen)
        if path is None:
            continue
        seen.add(path.casefold())
        folders.update(map(str, PurePosixPath(path).parents))  # each is made, whether it is named or not
        if max(len(seen), len(folders)) > MAX_FILES:
            raise unsafe(path, f"at most {MAX_FILES} entries")
        if kind == b"5":
            _make_folder(folder, path)
            continue
        total += size
        if total > max_bytes:
            raise too_large(max_bytes)
        _unpack(reader, folder, path, size)
    return total


def pack_folder(folder: Path) -> Iterator[bytes]:
    """The folder's regular files as a tar stream: sorted, without times and owners, so equal folders give equal
    bytes. PublishError("archive_unsafe") for a link or a device."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise unsafe(name, "only regular files and folders")
        if path.is_dir():
            continue
        with path.open("rb") as file:
            info = tarfile.TarInfo(name)
            info.size, info.mode = os.fstat(file.fileno()).st_size, 0o600
            yield info.tobuf(format=tarfile.PAX_FORMAT)
            left = info.size
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise unsafe(name, "files that do not shrink while they are packed")
        yield bytes(-info.size % BLOCK)
    yield bytes(2 * BLOCK)


class _Reader:
    """Members of a tar stream, one after the other. The consumer of a file reads exactly its size with `read`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def members(self) -> Iterator[tuple[str, bytes, int]]:
        """Name, type (b"0" file, b"5" folder) and size of each; ends at the two zero blocks."""
        name: str | None = None
        size: int | None = None
        while True:
            block = self.read(BLOCK)
            if not any(block):
                return
            _check_sum(block)
            kind = block[156:157].replace(b"\0", b"0").replace(b"7", b"0")
            stated = _number(block[124:136])
            if kind in (b"x", b"g", b"L"):
                text = self._small(stated)
                if kind == b"L":
                    name = _text(text.rstrip(b"\0"))
                elif kind == b"x":
                    name, size = _pax(text, name)
                continue
            member, stated = name or _name(block), stated if size is None else size
            name = size = None
            if kind not in (b"0", b"5"):
                raise unsafe(member, "only regular files and folders, no links or devices")
            length = stated if kind == b"0" else 0
            yield member, b"5" if member.endswith("/") else kind, length
            self.read(-length % BLOCK)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes (at most a chunk), or PublishError."""
        parts, left = [], size
        while left:
            part = self._stream.read(left)
            if not part:
                raise unsafe("the archive", "a complete, uncompressed tar stream")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _small(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise unsafe("the archive", f"headers of at most {MAX_HEADER_BYTES} bytes")
        text = self.read(size)
        self.read(-size % BLOCK)
        return text


def _member_path(name: str, kind: bytes, seen: set[str]) -> str | None:
    """The checked path, or None for the archive's own root."""
    path = name.removeprefix("./").rstrip("/")
    if path in ("", "."):
        if kind == b"5":
            return None
        raise unsafe(name, "named files")
    check_path(path)
    folded = path.casefold()
    if folded in seen and kind != b"5":
        raise unsafe(path, "each name once, upper and lower case taken as equal")
    return path


def _make_folder(folder: Path, path: str) -> None:
    try:
        (folder / path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _named_twice(path) from None


def _unpack(reader: _Reader, folder: Path, path: str, size: int) -> None:
    place = folder / path
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _named_twice(path) from None
    with os.fdopen(descriptor, "wb") as out:  # buffered: a bare write may take a part, as a disk that fills up does
        left = size
        while left:
            chunk = reader.read(min(CHUNK_BYTES, left))
            out.write(chunk)
            left -= len(chunk)


def _named_twice(path: str) -> PublishError:
    return unsafe(path, "each name once, as a file or as a folder")


def _check_sum(block: bytes) -> None:
    """The header's checksum: its bytes, the checksum's own taken as blanks."""
    if _number(block[148:156]) != sum(block[:148]) + 256 + sum(block[156:]):
        raise unsafe("the archive", "a tar archive with whole headers")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if value < 2**62:
            return value
        raise unsafe("the archive", "sizes that exist")
    digits = field.strip(b"\0 ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise unsafe("the archive", "a tar archive with whole headers")
    return int(digits, 8)


def _name(block: bytes) -> str:
    name, prefix = block[:100].split(b"\0", 1)[0], block[345:500].split(b"\0", 1)[0]
    ustar = block[257:263] == b"ustar\0"
    return _text(prefix + b"/" + name if ustar and prefix else name)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise unsafe(raw.decode("ascii", "backslashreplace"), "names in UTF-8") from None


def _pax(text: bytes, name: str | None) -> tuple[str | None, int | None]:
    """`path` and `size` of a pax header; sparse files are refused."""
    size: int | None = None
    while text:
        length, _, _ = text.partition(b" ")
        # Python reads no number of thousands of digits; none of this many is as small as a header.
        whole = length.isdigit() and len(length) <= MAX_DIGITS and len(length) + 2 < int(length) <= len(text)
        if not whole:
            raise unsafe("the archive", "pax headers that are whole")
        record, text = text[len(length) + 1 : int(length) - 1], text[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > MAX_DIGITS:
                raise unsafe("the archive", "sizes that exist")
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise unsafe(name or "the archive", "no sparse files")
    return name, size
