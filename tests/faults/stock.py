"""A data folder that is made once and copied."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stock:
    """A data folder to copy: models `guilty` (a / b, on the loop), `slow` (in the executor), `innocent` (text) and
    `cancer` (30 columns), a client's key without a limit worth the name, and the administrator's."""

    folder: Path
    admin: str
    key: str

    def copy(self, data: Path) -> None:
        """The same data, for a server of its own."""
        shutil.copytree(self.folder, data)
