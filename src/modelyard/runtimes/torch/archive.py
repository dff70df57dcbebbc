"""Which kind of PyTorch archive a file is, and reading one without PyTorch.

All three are zip files with one folder around everything: TorchScript has `code/` and `constants.pkl`, an exported
program `archive_format` and `models/`, a checkpoint of `torch.save` only `data.pkl`, which is a pickle.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from modelyard.core.errors import PublishError
from modelyard.runtimes.refusals import DAMAGED_ZIP

Kind = Literal["script", "exported", "checkpoint"]
MAX_ENTRIES = 100_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""A zip entry's local header: magic, and at its end the lengths of its name and of what follows it."""


def kind_of(path: Path) -> Kind | None:
    """The kind of archive, also of one that was cut off, by the first name in it; None if it is none of these."""
    first = first_name(path)
    if first is None or "/" not in first:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = {entry.filename.partition("/")[2] for entry in _entries(archive)}
    except DAMAGED_ZIP:
        # Cut off: exported programs begin with a weight or a mark of their own.
        inner = first.partition("/")[2]
        return "exported" if inner.startswith(("data/weights/", "data/constants/", "archive_")) else "script"
    if "archive_format" in names:
        return "exported"
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "script"
    return "checkpoint" if "data.pkl" in names else None


def first_name(path: Path) -> str | None:
    """The name of a zip file's first entry, from its beginning alone; None if there is no whole one."""
    with path.open("rb") as file:
        head = file.read(_LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size:
            return None
        magic, length, _ = _LOCAL_HEADER.unpack(head)
        name = file.read(length)
    return name.decode("utf-8", "replace") if magic == b"PK\x03\x04" and len(name) == length else None


def read_members(path: Path, max_bytes: int) -> dict[str, bytes]:
    """Every member by its name below the archive's one folder; PublishError("archive_unsafe") if they state more than
    `max_bytes`. Raises what zipfile raises for a damaged one."""
    with zipfile.ZipFile(path) as archive:
        entries = _entries(archive)
        stated = sum(entry.file_size for entry in entries)
        if stated > max_bytes or len(entries) > MAX_ENTRIES:
            raise PublishError(
                "archive_unsafe",
                f"The archive unpacks to {stated} bytes in {len(entries)} entries; {max_bytes} bytes are the most.",
                field="models.max_version_bytes",
                expected=max_bytes,
                got=stated,
            )
        members = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    if len(members) != len(entries) or "" in members:
        raise ValueError("two entries have one name")
    return members


def write_members(members: Mapping[str, bytes]) -> io.BytesIO:
    """An archive of these members alone. PyTorch gets this one, not the file: two readers of zip files may find
    different members in one file, and what was checked must be what is loaded."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    packed.seek(0)
    return packed


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of the archive. One that was cut off may end with a whole archive that was a member of it: then there
    is something before the first entry."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if min((entry.header_offset for entry in entries), default=0) != 0:
        raise ValueError("something lies before its first entry")
    return entries
