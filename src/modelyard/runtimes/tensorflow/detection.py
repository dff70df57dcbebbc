"""Whether a file is a SavedModel, or one of TensorFlow's other formats, by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from modelyard.runtimes.refusals import DAMAGED_ZIP

SCHEMA_1 = b"\x08\x01"
"""A SavedModel's first field: the version of its schema. No ONNX file has it: IR version 1 was never released."""
META_GRAPH = 0x12
USUAL = "saved_model.pb"
HDF5 = b"\x89HDF\r\n\x1a\n"


def begins_like_saved_model(path: Path) -> bool:
    """The first fields of a SavedModel: its schema, and a graph; cut off or not."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(3)
    return head[:2] == SCHEMA_1 and head[2:3] in (b"", bytes([META_GRAPH]))


def is_keras(path: Path) -> bool:
    """A model as `model.save` writes it: an archive with code in its configuration, or HDF5."""
    with path.open("rb") as file:
        if file.read(8) == HDF5:
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except DAMAGED_ZIP:
        return False
    return "config.json" in names and "model.weights.h5" in names
