"""A publisher over fakes: what the tests of publishing work on."""

from __future__ import annotations

from pathlib import Path

from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings
from modelyard.core.types import LoadProfile, Signature, TensorSpec
from modelyard.models.complete import complete
from modelyard.models.publish import Publisher
from modelyard.models.report import CheckOptions, CheckReport
from modelyard.testing import MemoryArtifactStore, MemoryRegistry

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


class Yard:
    """A publisher over fakes, with what it writes to in reach. The check accepts every file, or does `check`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = MemoryRegistry()
        self.artifacts = MemoryArtifactStore()
        self.checked: list[CheckOptions] = []
        self.publisher = Publisher(self.registry, self.artifacts, settings, SystemClock(), self.check)
        self.refusal: Exception | None = None

    def check(self, folder: Path, options: CheckOptions) -> CheckReport:
        """Names the first file, completes a fixed signature."""
        self.checked.append(options)
        if self.refusal is not None:
            raise self.refusal
        entry = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())[0]
        signature = complete(SIGNATURE, options.overrides)
        return CheckReport("onnx", entry, signature, {"producer": "test"}, LoadProfile(True, True, 1, 2))

    @property
    def left_behind(self) -> list[Path]:
        """What lies in the staging folder."""
        return list((self.settings.data / "staging").rglob("*"))
