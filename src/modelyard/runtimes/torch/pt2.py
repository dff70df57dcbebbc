"""Exported programs (`torch.export.save`): the file says what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import ModelyardError
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import extra_missing, nonempty, only_one, reason, unreadable
from modelyard.runtimes.torch.archive import kind_of
from modelyard.runtimes.torch.exported import ExportedProgram, signature_of
from modelyard.runtimes.torch.exported_file import KIND, Archive, read_archive
from modelyard.runtimes.torch.loaded import TorchModel

MAX_BYTES = 8 * 1024**3


class TorchExportRuntime:
    """The port `models.ports.Runtime` for `.pt2`."""

    format = "torch_export"

    def detect(self, folder: Path) -> str | None:
        """The one exported program, cut off or not."""
        return only_one(KIND, folder, lambda path: kind_of(path) == "exported")

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature and provenance as the archive states them; PublishError."""
        archive = _read(folder / entry, options)
        _program(archive)
        try:
            said = {"torch": archive.program.torch_version[:200]}
            return Inspection(self.format, entry, signature_of(archive), said, ".pt2")
        except ModelyardError:
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> TorchModel:
        """The program with `options["threads"]` threads; PublishError."""
        program = _program(_read(folder / manifest.entry, options))
        return TorchModel(program, manifest.signature, int(options.get("threads", 1)))


def _read(path: Path, options: Mapping[str, Any]) -> Archive:
    return read_archive(nonempty(path), int(options.get("max_version_bytes", MAX_BYTES)))


def _program(archive: Archive) -> ExportedProgram:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise extra_missing("PyTorch", "torch") from None
    try:
        return ExportedProgram(archive)
    except (ModelyardError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None
