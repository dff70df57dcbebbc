"""The program of the last release, taken out of its archive."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

COMMIT = "c59e548bc133cef8318335d78796aa5c4a244491"
"""The last one before the work on PostgreSQL."""
SCHEMA = "0005"
ARCHIVE = Path(__file__).with_name("source.tar.xz")
SHA256 = "590528cc9763c5f97b6532d9f9a22011eb0651ea0a0b525b46beacbfc5159474"
"""Made by `git archive --format=tar COMMIT src/modelyard | xz -9e`."""


def unpacked(folder: Path) -> Path:
    """Its sources in a folder: what PYTHONPATH must name first."""
    content = ARCHIVE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"
